//! From a request to its handler: the tree by method, our pages by name.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use crate::error::Kind;
use crate::hub::{Caller, Hub, NodeKind, TreePath};
use crate::proto::http::body::{Intake, Note, Outgoing};
use crate::proto::http::cache::Entry;
use crate::proto::http::express::Express;
use crate::proto::http::form::{self, Form};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::serve::{Connection, Site};
use crate::proto::http::target::{self, LONGEST_URI, Target};
use crate::proto::http::visit::{self, Visit};
use crate::proto::http::{Settings, archive, change, download, listing, page, signin, tus, upload};

/// The tree, and our pages beside it.
pub struct Tree {
    pub settings: Settings,
    pub hub: Hub,
    pub express: Express,
}

const FILE_METHODS: &str = "GET, HEAD, PUT, DELETE, COPY, MOVE, MKCOL, OPTIONS";
const FOLDER_METHODS: &str = "GET, HEAD, POST, DELETE, MOVE, MKCOL, OPTIONS";
const ALL_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, COPY, MOVE, MKCOL, OPTIONS";

#[async_trait]
impl Site for Tree {
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing> {
        let (parts, body) = request.into_parts();
        let intake = Intake::new(body, connection);
        let path = parts.uri.path().chars().take(LONGEST_URI).collect();
        let mut note = Note::new(connection, visit::verb(&parts.method), path, Instant::now());
        let answer = self.route(&parts, intake, connection, &mut note).await;
        let response = answer.unwrap_or_else(|refusal| {
            let who = (!note.account.is_empty()).then_some(note.account.as_str());
            let basic = signin::basic_allowed(&connection.origin, self.settings.basic_in_clear);
            reply::render(refusal, &parts, who, basic)
        });
        let mut response = visit::finish(response, &parts.method, note);
        self.keep(&parts, &mut response);
        response
    }

    fn express(&self) -> Option<&Express> {
        self.express.cache.is_on().then_some(&self.express)
    }
}

impl Tree {
    /// Keeps a response that may be sent again.
    fn keep(&self, parts: &Parts, response: &mut Response<Outgoing>) {
        if let Some((audience, entry)) = Entry::take(response) {
            self.express.cache.put(audience, parts.uri.path(), entry);
        }
    }

    async fn route(&self, parts: &Parts, intake: Intake, connection: &Arc<Connection>, note: &mut Note) -> Answer {
        if parts.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > LONGEST_URI) {
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the URL is longer than 8 KiB"));
        }
        if parts.method == Method::CONNECT {
            return Err(Refusal::method(ALL_METHODS));
        }
        let target = target::read(parts.uri.path())?;
        if let Target::Own(names) = &target {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Some(answer) = open_page(parts, &names) {
                return answer;
            }
        }
        let asker = signin::identify(&self.hub, connection, &parts.headers, self.settings.basic_in_clear).await?;
        if !asker.caller.is_guest() {
            asker.caller.name().clone_into(&mut note.account);
            connection.permit.lock().account(asker.caller.name())?;
        }
        signin::guard(parts, asker.cookie)?;
        let mut visit = Visit { parts, connection, caller: asker.caller, token: asker.token, intake };
        match target {
            Target::Everything if parts.method == Method::OPTIONS => Ok(options(ALL_METHODS)),
            Target::Everything => Err(Refusal::bad("`*` is for OPTIONS only")),
            Target::Own(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.own(&mut visit, &names, note).await
            }
            Target::Tree { path, folder } => {
                note.path = path.to_string();
                tree(&mut visit, &path, folder, note).await
            }
        }
    }

    /// Our pages that need to know who asks.
    async fn own(&self, visit: &mut Visit<'_>, names: &[&str], note: &mut Note) -> Answer {
        match (names, visit.parts.method.as_str()) {
            (["login"], "GET" | "HEAD") => {
                let next = visit.query("next").unwrap_or_default();
                match visit.caller.is_guest() {
                    true => Ok(reply::html(page::login(&next, None))),
                    false => Ok(reply::see_other(&onward(&next, &visit.caller))),
                }
            }
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
        let caller = match self.hub.login(&origin, name, form.field("password").as_bytes()).await {
            Ok(caller) => caller,
            Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::Throttled | Kind::Invalid) => {
                let throttled = error.kind() == Kind::Throttled;
                let text = if throttled { error.public() } else { "The name or the password is not right." };
                let mut response = reply::html(page::login(next, Some(text)));
                *response.status_mut() =
                    if throttled { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
                // A 401 names a scheme; browsers do not ask for a Bearer token, so the page is shown.
                reply::set(&mut response, header::WWW_AUTHENTICATE, "Bearer realm=\"Stoa\"");
                return Ok(response);
            }
            Err(error) => return Err(error.into()),
        };
        caller.name().clone_into(&mut note.account);
        let opening = self.hub.open_session(&caller).await?;
        let mut response = reply::see_other(&onward(next, &caller));
        reply::set(&mut response, header::SET_COOKIE, &signin::cookie(&origin, &opening.token, opening.seconds));
        Ok(response)
    }

    async fn sign_out(&self, visit: &Visit<'_>) -> Answer {
        if let Some(token) = &visit.token {
            self.hub.close_session(token).await?;
        }
        let mut response = reply::see_other("/-/login");
        reply::set(&mut response, header::SET_COOKIE, &signin::cookie(visit.caller.origin(), "", 0));
        Ok(response)
    }
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

fn options(allow: &'static str) -> Response<Outgoing> {
    let mut response = reply::bare(StatusCode::NO_CONTENT);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// The tree by method.
async fn tree(visit: &mut Visit<'_>, path: &TreePath, folder: bool, note: &mut Note) -> Answer {
    let allow = if folder { FOLDER_METHODS } else { FILE_METHODS };
    match visit.parts.method.as_str() {
        "COPY" => change::transfer(visit, path, true).await,
        "DELETE" => change::delete(visit, path, folder).await,
        "GET" | "HEAD" if folder => match archive::asked(visit)? {
            Some(form) => archive::send(visit, path, form, &[]).await,
            None => listing::send(visit, path).await,
        },
        "GET" | "HEAD" => file(visit, path).await,
        "MKCOL" => change::make_folder(visit, path).await,
        "MOVE" => change::transfer(visit, path, false).await,
        "OPTIONS" => Ok(options(allow)),
        "POST" if folder && tus::spoken(visit) => tus::into_folder(visit, path, note).await,
        "POST" if folder => change::post(visit, path, note).await,
        "PUT" if folder => Err(Refusal::bad("a file's URL does not end in a slash; a folder is made by MKCOL")),
        "PUT" => upload::put(visit, path, note).await,
        known if visit::is_known(known) => Err(Refusal::method(allow)),
        _ => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server does not know the method")),
    }
}

/// A file, or the way to the folder that the URL may have meant.
async fn file(visit: &Visit<'_>, path: &TreePath) -> Answer {
    let mark = visit.is_plain().then(|| visit.caller.mark(path)).flatten();
    let error = match visit.caller.open(path).await {
        Ok(opened) => return download::send(visit, path, opened, mark).await,
        Err(error) => error,
    };
    if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::WrongType)
        && visit.caller.stat(path).await.is_ok_and(|entry| entry.node.kind == NodeKind::Folder)
    {
        let query = visit.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let place = format!("{}{query}", target::url(path, true));
        return Ok(reply::moved(StatusCode::PERMANENT_REDIRECT, &place));
    }
    Err(error.into())
}
