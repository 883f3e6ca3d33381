//! What changes the tree beside `PUT`: `DELETE`, and the forms of our own pages.

use bytes::Bytes;
use hyper::{Response, StatusCode, header};

use crate::error::{Error, Kind};
use crate::hub::files::{self, MakeFolder, RemoveFile, RemoveFolder, Rename};
use crate::hub::settings::Overwrite;
use crate::hub::{NodeKind, Receipt, TreePath, Upload, Verb, WriteOptions};
use crate::proto::http::archive;
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::condition::{self, Verdict};
use crate::proto::http::form::Form;
use crate::proto::http::multipart::{Piece, Reader};
use crate::proto::http::page;
use crate::proto::http::pager::Sum;
use crate::proto::http::receipt::{self, Again, Once};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::target;
use crate::proto::http::visit::{Visit, who};

/// Bytes of small files that a form may keep in memory until it is complete; the rest waits on the disk.
const IN_MEMORY: u64 = 256 << 10;
/// Files and folders that are counted before they are deleted.
const COUNTED: usize = 10_000;
/// Largest form of names that were chosen.
const CHOSEN: usize = 256 << 10;

/// `DELETE` of a file, or of a folder and everything in it (RFC 4918 §9.6.1); with `?all=0` of a folder only when it is empty.
///
/// # Errors
/// Those of the hub; 412 for a condition.
pub async fn delete(visit: &Visit<'_>, path: &TreePath, folder: bool) -> Answer {
    if condition::any(visit.headers()) {
        let there = match visit.caller.stat(path).await {
            Ok(entry) => Some(entry.node),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        // RFC 9110 §13.2.1: who may not remove it learns nothing of conditions.
        visit.caller.allow_seemingly(Verb::Delete, path)?;
        if condition::judge(visit.headers(), there.as_ref(), false) != Verdict::Go {
            return Err(Refusal::precondition());
        }
    }
    let all = visit.query("all").is_none() || visit.flag("all");
    remove(visit, path, folder, all).await?;
    Ok(reply::bare(StatusCode::NO_CONTENT))
}

async fn remove(visit: &Visit<'_>, path: &TreePath, folder: bool, all: bool) -> Result<(), Error> {
    if !folder {
        match visit.caller.perform(RemoveFile { path: path.clone(), tokens: Vec::new() }).await {
            Err(error) if error.kind() == Kind::WrongType => {}
            done => return done,
        }
    }
    visit.caller.perform(RemoveFolder { path: path.clone(), all, tokens: Vec::new() }).await
}

/// The forms of a folder's page: upload, new folder, rename, delete, download.
///
/// # Errors
/// Those of the hub; 400 for a form that is not ours.
pub async fn post(visit: &mut Visit<'_>, folder: &TreePath, note: &mut Note) -> Answer {
    let kind = visit.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    if let Some(reader) = Reader::new(&kind) {
        let (receipts, left_out) = files(visit, folder, reader, note).await?;
        if !left_out.is_empty() {
            let who = who(&visit.caller);
            let mut response = reply::html(page::taken(&visit.rules.base, folder, who, receipts.len(), &left_out));
            *response.status_mut() = StatusCode::CONFLICT;
            return Ok(response);
        }
        if reply::wants(visit.headers(), "application/json") {
            let list: Vec<_> = receipts.iter().map(|one| receipt::value(&visit.rules.base, one)).collect();
            let text = format!("{}\n", serde_json::json!({ "files": list }));
            let mut response = reply::typed(Outgoing::whole(text), "application/json");
            *response.status_mut() = StatusCode::CREATED;
            return Ok(response);
        }
        return Ok(back(folder, &format!("added={}", receipts.len())));
    }
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "POST to a folder takes the forms of its page; a file is sent by PUT",
        ));
    }
    let form = Form::read(&visit.intake.whole(CHOSEN).await?);
    let names = form.all("name");
    if let Some(archive) = archive::Form::of(form.field("do")) {
        return archive::send(visit, folder, archive, &names).await;
    }
    let name = form.field("name");
    if name.is_empty() {
        return Err(Refusal::bad("a name is missing"));
    }
    match form.field("do") {
        "folder" => {
            let path = folder.join(name.trim())?;
            visit.caller.perform(MakeFolder { path: path.clone() }).await?;
            Ok(reply::see_other(&target::url(&path, true)))
        }
        "remove" => {
            let inside = inside(visit, folder, &names).await?;
            Ok(reply::html(page::confirm(&visit.rules.base, folder, who(&visit.caller), &names, &inside)))
        }
        "delete" => {
            let paths = names.iter().map(|name| folder.join(name)).collect::<Result<Vec<_>, _>>()?;
            // Only the page that says what is in a folder sends this.
            let all = form.field("all") == "1";
            for path in &paths {
                remove(visit, path, false, all).await?;
            }
            Ok(back(folder, &format!("removed={}", paths.len())))
        }
        "rename" => {
            // As they are written: a blank at the end belongs to the name.
            let (from, to) = (folder.join(name)?, folder.join(form.field("to"))?);
            let act = Rename { from, to, taken: files::Taken::NeverReplace, tokens: Vec::new() };
            let got = visit.caller.perform(act).await?;
            Ok(back(folder, &format!("renamed={}", target::escape(got.name()))))
        }
        _ => Err(Refusal::bad("the form cannot be read")),
    }
}

/// What would go with the folders among these names.
async fn inside(visit: &Visit<'_>, folder: &TreePath, names: &[&str]) -> Result<String, Refusal> {
    let mut waiting = Vec::new();
    for name in names {
        let path = folder.join(name)?;
        visit.caller.allow(Verb::Delete, &path)?;
        let entry = visit.caller.stat(&path).await?;
        waiting.extend((entry.node.kind == NodeKind::Folder).then_some(path));
    }
    let (some, mut sum, mut unseen) = (!waiting.is_empty(), Sum::default(), false);
    while let Some(folder) = waiting.pop() {
        let Ok(mut listing) = visit.caller.list(&folder).await else {
            unseen = true;
            continue;
        };
        loop {
            let entries = listing.next_page().await?;
            for entry in &entries {
                sum.add(entry);
            }
            if sum.count() > COUNTED {
                return Ok(format!("More than {} files and folders are in it.", page::thousands(COUNTED as u64)));
            }
            if entries.is_empty() {
                break;
            }
            let folders = entries.into_iter().filter(|entry| entry.node.kind == NodeKind::Folder);
            waiting.extend(folders.map(|entry| entry.path));
        }
    }
    Ok(match (some, unseen, sum.count()) {
        (false, ..) => String::new(),
        (true, false, 0) => "Nothing is in it.".to_owned(),
        (true, false, _) => format!("With all that is in it: {}.", page::words(sum)),
        (true, true, 0) => "With all that is in it, which you may not see.".to_owned(),
        (true, true, _) => format!("With all that is in it: {}, and what you may not see.", page::words(sum)),
    })
}

fn back(folder: &TreePath, said: &str) -> Response<Outgoing> {
    reply::see_other(&format!("{}?{said}", target::url(folder, true)))
}

/// A file of a form: being stored, left out, or compared with what the same request stored before.
enum Arriving {
    New(Box<Upload>),
    /// Its name is taken.
    LeftOut(String),
    Again(Box<(Again, Receipt)>),
}

/// Takes the files of an upload form and stores all of them once the form is complete; says what became of each, in their order, and which
/// were left out because their names are taken. When anything fails, none is stored.
async fn files(
    visit: &mut Visit<'_>,
    folder: &TreePath,
    mut reader: Reader,
    note: &mut Note,
) -> Result<(Vec<Receipt>, Vec<String>), Refusal> {
    let once = Once::of(visit)?;
    let mut taken = Taken::default();
    loop {
        match reader.next()? {
            Piece::Hungry => match visit.intake.next().await? {
                Some(bytes) => reader.feed(&bytes),
                None => return Err(receipt::broke_off().into()),
            },
            Piece::Part { file: Some(file) } => {
                // Some browsers send the path the file had on its own machine.
                let name = file.rsplit(['/', '\\']).next().unwrap_or_default();
                taken.open = match name.is_empty() {
                    // A file field in which nothing was chosen: nothing may come.
                    true => Open::Nameless,
                    false => Open::File(begin(visit, folder, name, taken.files.len(), once.as_ref()).await?),
                };
            }
            Piece::Part { file: None } => taken.open = Open::Field,
            Piece::Bytes(bytes) => taken.push(bytes).await?,
            Piece::End => taken.close().await?,
            Piece::Done => break,
        }
        note.taken = visit.intake.taken();
    }
    // What follows the last boundary says nothing; but the body must come to its end.
    while visit.intake.next().await?.is_some() {}
    taken.store().await
}

/// The files of a form, before they are stored.
#[derive(Default)]
struct Taken {
    files: Vec<Arriving>,
    open: Open,
    /// Bytes of the files that are in memory.
    in_memory: u64,
}

/// The part of a form that is being read.
#[derive(Default)]
enum Open {
    /// Text: it says nothing to us.
    #[default]
    Field,
    /// A file field without a name.
    Nameless,
    File(Arriving),
}

impl Taken {
    async fn push(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        match &mut self.open {
            Open::Field | Open::File(Arriving::LeftOut(_)) => {}
            Open::Nameless if bytes.is_empty() => {}
            Open::Nameless => return Err(Refusal::bad("a file of the form has no name; nothing was stored")),
            Open::File(Arriving::New(upload)) => upload.push(bytes).await?,
            Open::File(Arriving::Again(before)) => before.0.push(&bytes),
        }
        Ok(())
    }

    /// The part is complete.
    async fn close(&mut self) -> Result<(), Refusal> {
        let Open::File(mut file) = std::mem::take(&mut self.open) else { return Ok(()) };
        if let Arriving::New(upload) = &mut file {
            let size = upload.len();
            match self.in_memory.saturating_add(size) > IN_MEMORY {
                true => upload.stage().await?,
                false => self.in_memory += size,
            }
        }
        self.files.push(file);
        Ok(())
    }

    async fn store(self) -> Result<(Vec<Receipt>, Vec<String>), Refusal> {
        let (mut fresh, mut before, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for file in self.files {
            match file {
                Arriving::New(upload) => {
                    fresh.push(*upload);
                    before.push(None);
                }
                Arriving::Again(known) => {
                    let (again, receipt) = *known;
                    again.compare(&receipt)?;
                    before.push(Some(receipt));
                }
                Arriving::LeftOut(name) => left_out.push(name),
            }
        }
        let mut stored = Upload::commit_all(fresh).await?.into_iter();
        let receipts = before.into_iter().filter_map(|known| known.or_else(|| stored.next())).collect();
        Ok((receipts, left_out))
    }
}

/// Begins the file that is number `place` of a form.
async fn begin(
    visit: &Visit<'_>,
    folder: &TreePath,
    name: &str,
    place: usize,
    once: Option<&Once>,
) -> Result<Arriving, Refusal> {
    let most = visit.rules.settings.form_files;
    if place >= most {
        return Err(
            Error::new(Kind::TooLarge, format!("a form brings at most {most} files ([http] form_files)")).into()
        );
    }
    let key = once.map(|once| once.file(u32::try_from(place).unwrap_or(u32::MAX), name));
    if let Some(key) = &key
        && let Some(receipt) = receipt::found(visit, key).await?
    {
        return Ok(Arriving::Again(Box::new((Again::new(), receipt))));
    }
    let path = folder.join(name)?;
    let spares = spares(visit, &path);
    if spares && visit.caller.stat(&path).await.is_ok() {
        return Ok(Arriving::LeftOut(name.to_owned()));
    }
    let only_if = spares.then_some(None);
    let options = WriteOptions { receipt: true, digest: key.is_some(), once: key, only_if, ..WriteOptions::default() };
    match visit.caller.write(&path, options).await {
        Err(error) if spares && error.kind() == Kind::Conflict => Ok(Arriving::LeftOut(name.to_owned())),
        upload => Ok(Arriving::New(Box::new(upload?))),
    }
}

/// The page's form replaces nothing unless it says so. Programs do as they say.
fn spares(visit: &Visit<'_>, path: &TreePath) -> bool {
    let view = visit.caller.hub().view();
    let keeps_both = view.space_of(path).is_some_and(|(space, _)| space.overwrite == Overwrite::KeepBoth);
    // Who sees nothing here must not learn by this which names are taken.
    let blind = view.adds_unseeing(visit.caller.account(), path);
    !keeps_both && !blind && !visit.flag("replace") && reply::wants(visit.headers(), "text/html")
}
