//! From a request to its handler: the tree by method, our pages by name.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::error::Kind;
use crate::hub::{Caller, Hub, NodeKind, TreePath};
use crate::proto::http::admit::{self, Outline};
use crate::proto::http::base::Way;
use crate::proto::http::body::{Intake, Note, Outgoing};
use crate::proto::http::cache::Entry;
use crate::proto::http::download::FileReply;
use crate::proto::http::fast_path::FastPath;
use crate::proto::http::form::{self, Form};
use crate::proto::http::forwarded::Arrival;
use crate::proto::http::reply::{self, Answer, Refusal, Reply};
use crate::proto::http::serve::{Connection, Site};
use crate::proto::http::settings::Rules;
use crate::proto::http::signin::{self, Credentials};
use crate::proto::http::sites::{self, Website};
use crate::proto::http::target::{self, Target};
use crate::proto::http::visit::{self, Visit};
use crate::proto::http::{archive, change, connect, dav, download, failed, listing, mime, page, tus, upload};

/// The tree, our pages beside it, and the sites.
pub struct Tree {
    pub rules: Arc<Rules>,
    pub hub: Hub,
    pub fast_path: FastPath,
}

const FILE_METHODS: &str = "GET, HEAD, PUT, DELETE, COPY, MOVE, MKCOL, PROPFIND, PROPPATCH, LOCK, UNLOCK, OPTIONS";
const FOLDER_METHODS: &str = "GET, HEAD, POST, DELETE, COPY, MOVE, MKCOL, PROPFIND, PROPPATCH, LOCK, UNLOCK, OPTIONS";
const ALL_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, COPY, MOVE, MKCOL, PROPFIND, PROPPATCH, LOCK, UNLOCK, OPTIONS";

/// Bytes of a path that an access line may hold.
const LONGEST_NOTED: usize = 8 << 10;

#[async_trait]
impl Site for Tree {
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing> {
        let (mut parts, body) = request.into_parts();
        let Rules { settings, sites, base, .. } = &*self.rules;
        let way = base.enter(&mut parts.uri);
        let intake = Intake::new(body, parts.version, connection).at_most(settings.body_size.0);
        let arrival = Arrival::of(&parts, connection, settings.forwarded);
        let path = parts.uri.path().chars().take(LONGEST_NOTED).collect();
        let mut note = Note::new(connection, visit::verb(&parts.method), path, Instant::now());
        note.origin = arrival.origin.clone();
        let site = sites.number(arrival.host.as_bytes()).and_then(|number| sites.get(number));
        let cors = site.map_or(&self.rules.cors, |site| &site.cors);
        let early = self.refuse(&parts, &arrival, way, &intake).or_else(|| cors.preflight(&parts).map(Ok));
        let answer = match early {
            Some(answer) => {
                // Its body is left unread.
                drop(intake);
                answer.map(Reply::from)
            }
            None => self.route(&parts, &arrival, site, intake, connection, &mut note).await,
        };
        let complete = |status, headers: &mut HeaderMap| {
            reply::harden(headers);
            cors.tell(&parts.headers, headers);
            self.secure(&arrival, site, status, headers);
            base.leave(headers);
        };
        let mut response = match answer {
            Ok(Reply::File(mut file)) => {
                complete(StatusCode::OK, &mut file.answer.headers);
                return visit::finish(self.send(*file, &parts), &parts.method, note);
            }
            Ok(Reply::Made(response)) => response,
            Err(refusal) => {
                failed::keep(&refusal, &parts, &note);
                let who = (!note.account.is_empty()).then_some(note.account.as_str());
                let basic = signin::basic_allowed(&arrival.origin, settings.basic_in_clear);
                let bare = site.is_some_and(|site| !site.settings.own_pages);
                reply::render(refusal, &parts, base, who, basic, bare)
            }
        };
        complete(response.status(), response.headers_mut());
        if parts.version < Version::HTTP_2 && connection.pulse.is_unread() {
            // The rest of the body comes where the next request should: this response is the last one.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        visit::finish(response, &parts.method, note)
    }

    fn fast_path(&self, connection: &Connection) -> Option<&FastPath> {
        // Whoever a proxy speaks for is known only from headers.
        let able = self.fast_path.cache.is_on() && connection.trusted.is_none();
        able.then_some(&self.fast_path)
    }
}

fn is_saved(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(mime::is_saved)
}

impl Tree {
    /// The response of a file, whose answer is kept where it may be sent again.
    fn send(&self, file: FileReply, parts: &Parts) -> Response<Outgoing> {
        let FileReply { answer, part, body, keep } = file;
        let (status, headers) = answer.head(&part);
        if let Some(keep) = keep {
            self.fast_path.cache.put(keep.audience, parts.uri.path(), Entry::new(keep, answer));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Says what browsers must mind, beside what every response carries.
    fn secure(&self, arrival: &Arrival, site: Option<&Website>, status: StatusCode, headers: &mut HeaderMap) {
        // RFC 6797 §7.2: only by TLS.
        if let Some(hsts) = self.rules.hsts.as_ref().filter(|_| arrival.origin.secure) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        // A site may be linked to, shown in part and opened by others as any other on the web.
        let trusted = site.is_some_and(|site| site.settings.trusted);
        if trusted {
            headers.remove("cross-origin-resource-policy");
        }
        if status == StatusCode::NOT_MODIFIED || is_saved(headers) {
            // Where no page is shown nothing leads on from it, and of one that is shown again the browser knows.
            headers.remove(header::REFERRER_POLICY);
        } else if trusted {
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
        } else {
            let opener = HeaderName::from_static("cross-origin-opener-policy");
            headers.insert(opener, HeaderValue::from_static("same-origin"));
        }
    }

    /// What is answered whoever asks: too long, too large, nobody's name, the wrong scheme, outside.
    fn refuse(&self, parts: &Parts, arrival: &Arrival, way: Way, intake: &Intake) -> Option<Answer> {
        let settings = &self.rules.settings;
        let whole = parts.uri.path_and_query().map_or("", |whole| whole.as_str());
        let outline = Outline {
            target: whole,
            lines: parts.headers.len(),
            bytes: parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum(),
            host: arrival.host.as_bytes(),
        };
        if let Err(refusal) = admit::site(&self.rules, &outline) {
            return Some(Err(refusal));
        }
        if settings.body_size.0 > 0 && intake.length().is_some_and(|length| length > settings.body_size.0) {
            let words = format!("the body is larger than {} ([http] body_size)", settings.body_size);
            return Some(Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)));
        }
        if parts.uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // RFC 9113 §8.3.1: `:authority` names nobody.
            return Some(Err(Refusal::bad("the authority names a user; sign in with a header")));
        }
        if way == Way::Out {
            return Some(Err(Refusal::missing()));
        }
        if admit::must_use_tls(&self.rules, arrival.origin.secure, parts.uri.path()) {
            return Some(to_https(arrival, settings.https_port, &format!("{}{whole}", self.rules.base)));
        }
        let reading = parts.method == Method::GET || parts.method == Method::HEAD;
        (way == Way::Slash && reading).then(|| Ok(reply::moved(StatusCode::PERMANENT_REDIRECT, whole)))
    }

    async fn route(
        &self,
        parts: &Parts,
        arrival: &Arrival,
        site: Option<&Website>,
        intake: Intake,
        connection: &Arc<Connection>,
        note: &mut Note,
    ) -> Result<Reply, Refusal> {
        if parts.method == Method::CONNECT {
            return Err(Refusal::method(ALL_METHODS));
        }
        let bare = site.is_some_and(|site| !site.settings.own_pages);
        // A site says itself what is wrong with a path.
        let target =
            if site.is_some() { target::read(parts.uri.path()).ok() } else { Some(target::read(parts.uri.path())?) };
        if let (Some(Target::Own(names)), false) = (&target, bare) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Some(answer) = open_page(parts, &names) {
                return answer.map(Reply::from);
            }
        }
        if parts.method == Method::OPTIONS && site.is_none() {
            match &target {
                Some(Target::Everything) => return Ok(dav::options(ALL_METHODS).into()),
                Some(Target::Tree { folder: true, .. }) => {
                    let mut response = dav::options(FOLDER_METHODS);
                    tus::advertise(&self.hub.guest(arrival.origin.clone()), &mut response);
                    return Ok(response.into());
                }
                Some(Target::Tree { folder: false, .. }) => return Ok(dav::options(FILE_METHODS).into()),
                Some(Target::Own(_)) | None => {}
            }
        }
        let shown = Credentials::of(&parts.headers, signin::cookie_name(&arrival.origin, &self.rules.base));
        let asker = shown.identify(&self.hub, connection, &arrival.origin, &self.rules).await?;
        if !asker.caller.is_guest() {
            asker.caller.name().clone_into(&mut note.account);
            connection.permit.lock().account(asker.caller.name())?;
        }
        connection.signed.set(asker.caller.ended());
        let intake = intake.within(asker.caller.ended());
        let cors = site.map_or(&self.rules.cors, |site| &site.cors);
        signin::guard(parts, &arrival.host, asker.cookie, cors.lists(&parts.headers))?;
        let (caller, token) = (asker.caller, asker.token);
        let rules = &self.rules;
        let mut visit = Visit { parts, connection, caller, token, intake, host: &arrival.host, rules, site };
        match (target, site) {
            (Some(Target::Own(names)), _) if !bare => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.own(&mut visit, &names, note).await.map(Reply::from)
            }
            (_, Some(site)) => sites::answer(&visit, site, note).await,
            (Some(Target::Tree { path, folder }), None) => {
                note.path = path.to_string();
                dav::guard(&visit)?;
                // An upload in pieces is judged by the file it goes to, which its own words name.
                if !(folder && tus::creates(&visit)) {
                    dav::conditions(&mut visit, &path).await?;
                }
                let answer = match dav::answer(&mut visit, &path, &rules.settings).await {
                    Some(answer) => answer.map(Reply::from),
                    None => tree(&mut visit, &path, folder, note).await,
                };
                answer.map_err(|refusal| dav::explain(&visit, &path, refusal))
            }
            (Some(Target::Everything), None) => Err(Refusal::bad("`*` is for OPTIONS only")),
            (Some(Target::Own(_)) | None, None) => Err(Refusal::missing()),
        }
    }

    /// Our pages that need to know who asks.
    async fn own(&self, visit: &mut Visit<'_>, names: &[&str], note: &mut Note) -> Answer {
        match (names, visit.parts.method.as_str()) {
            (["login"], "GET" | "HEAD") => {
                let next = visit.query("next").unwrap_or_default();
                match visit.caller.is_guest() {
                    true => Ok(reply::html(page::login(&self.rules.base, &next, None))),
                    false => Ok(reply::see_other(&onward(&next, &visit.caller))),
                }
            }
            (["connect"], "GET" | "HEAD") => Ok(connect::send(visit)),
            (["connect"], _) => Err(Refusal::method("GET, HEAD")),
            (["login"], "POST") => self.sign_in(visit, note).await,
            (["logout"], "POST") => self.sign_out(visit).await,
            (["uploads"], _) => tus::own(visit, None, note).await,
            (["uploads", id], _) => tus::own(visit, Some(id), note).await,
            (["login" | "logout"], _) => Err(Refusal::method("GET, HEAD, POST")),
            _ => Err(Refusal::missing()),
        }
    }

    async fn sign_in(&self, visit: &mut Visit<'_>, note: &mut Note) -> Answer {
        let form = Form::read(&visit.intake.whole(form::LARGEST).await?);
        let (name, next) = (form.field("name").trim(), form.field("next"));
        let origin = visit.caller.origin().clone();
        if !signin::basic_allowed(&origin, self.rules.settings.basic_in_clear) {
            let text = "A password may not be sent without TLS: open this page by https.";
            let mut response = reply::html(page::login(&self.rules.base, next, Some(text)));
            *response.status_mut() = StatusCode::FORBIDDEN;
            return Ok(response);
        }
        let caller = match self.hub.login(&origin, name, form.field("password").as_bytes()).await {
            Ok(caller) => caller,
            Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::Throttled | Kind::Invalid) => {
                let throttled = error.kind() == Kind::Throttled;
                let text = if throttled { error.public() } else { "The name or the password is not right." };
                let mut response = reply::html(page::login(&self.rules.base, next, Some(text)));
                *response.status_mut() =
                    if throttled { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
                // A 401 names a scheme; browsers do not ask for a Bearer token, so the page is shown.
                reply::set(&mut response, header::WWW_AUTHENTICATE, "Bearer realm=\"Stoa\"");
                if throttled {
                    response.headers_mut().insert(header::RETRY_AFTER, reply::retry_after(&error));
                }
                return Ok(response);
            }
            Err(error) => return Err(error.into()),
        };
        caller.name().clone_into(&mut note.account);
        let opening = self.hub.open_session(&caller).await?;
        let mut response = reply::see_other(&onward(next, &caller));
        reply::set(
            &mut response,
            header::SET_COOKIE,
            &signin::cookie(&origin, &self.rules.base, &opening.token, opening.seconds),
        );
        Ok(response)
    }

    async fn sign_out(&self, visit: &mut Visit<'_>) -> Answer {
        let form = Form::read(&visit.intake.whole(form::LARGEST).await?);
        if let Some(token) = &visit.token {
            self.hub.close_session(token).await?;
        }
        if !form.field("everywhere").is_empty() && !visit.caller.is_guest() {
            self.hub.sign_out(visit.caller.name()).await?;
        }
        let mut response = reply::see_other("/-/login");
        let over = signin::cookie(visit.caller.origin(), &self.rules.base, "", 0);
        reply::set(&mut response, header::SET_COOKIE, &over);
        Ok(response)
    }
}

/// The same place by TLS.
fn to_https(arrival: &Arrival, port: u16, whole: &str) -> Answer {
    let name = sites::host_name(arrival.host.as_bytes());
    if name.is_empty() {
        return Err(Refusal::bad("the request names no host, so there is no way to it by TLS"));
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    Ok(reply::moved(StatusCode::PERMANENT_REDIRECT, &format!("https://{name}{port}{whole}")))
}

/// Where a caller goes after signing in.
fn onward(next: &str, caller: &Caller) -> String {
    target::local(next).map_or_else(|| target::url(&caller.start(), true), str::to_owned)
}

/// Pages that are the same for everybody.
fn open_page(parts: &Parts, names: &[&str]) -> Option<Answer> {
    let reading = parts.method == Method::GET || parts.method == Method::HEAD;
    let answer = match names {
        ["health"] => Ok(reply::text("ok\n")),
        ["assets", "stoa.css"] => Ok(page::style()),
        _ => return None,
    };
    Some(if reading { answer } else { Err(Refusal::method("GET, HEAD")) })
}

/// The tree by method.
async fn tree(visit: &mut Visit<'_>, path: &TreePath, folder: bool, note: &mut Note) -> Result<Reply, Refusal> {
    let allow = if folder { FOLDER_METHODS } else { FILE_METHODS };
    let answer = match visit.parts.method.as_str() {
        "GET" | "HEAD" if !folder => return file(visit, path).await,
        "DELETE" => change::delete(visit, path, folder).await,
        "GET" | "HEAD" => match archive::asked(visit)? {
            Some(form) => archive::send(visit, path, form, &[]).await,
            None => listing::send(visit, path).await,
        },
        "POST" if folder && tus::creates(visit) => tus::into_folder(visit, path, note).await,
        "POST" if folder => change::post(visit, path, note).await,
        "PUT" if folder => Err(Refusal::bad("a file's URL does not end in a slash; a folder is made by MKCOL")),
        "PUT" => upload::put(visit, path, note).await,
        known if visit::is_known(known) => Err(Refusal::method(allow)),
        _ => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server does not know the method")),
    };
    answer.map(Reply::from)
}

/// A file, or the way to the folder that the URL may have meant.
async fn file(visit: &Visit<'_>, path: &TreePath) -> Result<Reply, Refusal> {
    let mark = visit.mark(path);
    let error = match visit.caller.open(path).await {
        Ok(opened) => return download::send(visit, path, opened, mark).await,
        Err(error) => error,
    };
    if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::WrongType)
        && visit.caller.stat(path).await.is_ok_and(|entry| entry.node.kind == NodeKind::Folder)
    {
        let query = visit.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let place = format!("{}{query}", target::url(path, true));
        return Ok(reply::moved(StatusCode::PERMANENT_REDIRECT, &place).into());
    }
    Err(error.into())
}
