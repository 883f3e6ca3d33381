//! Someone allowed to ask: every door's only handle on the data.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::hub::account::Account;
use crate::hub::act::Act;
use crate::hub::commit::Who;
use crate::hub::listing::Listing;
use crate::hub::lock::Reach;
use crate::hub::partial::Partial;
use crate::hub::path::TreePath;
use crate::hub::policy::{Verb, Verbs};
use crate::hub::settings::Overwrite;
use crate::hub::staging::Hold;
use crate::hub::transfer::{Base, Download, Goal, Incoming, Upload, WriteMode, WriteOptions};
use crate::hub::view::{Principal, Space, SpaceRole, View, access_ended};
use crate::hub::{Hub, now};
use crate::origin::Origin;
use crate::store::{AccountKind, Node, NodeKind, RelPath};

/// A principal at an origin. Made only by [`Hub::login`], [`Hub::resume`] and [`Hub::guest`]; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    hub: Hub,
    origin: Origin,
    account: Option<Arc<Account>>,
    /// Lock tokens shown with this request.
    tokens: Option<Arc<[String]>>,
}

/// One name of the tree, as this caller may see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// File or folder, size, time, tag.
    pub node: Node,
    /// What the caller may do with it.
    pub rights: Verbs,
}

impl Entry {
    /// It is a folder that no volume holds, on the way to the spaces below it: it has no time and cannot be changed.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.node.tag == 0
    }
}

impl Caller {
    pub(crate) fn new(hub: Hub, origin: Origin, account: Option<Arc<Account>>) -> Self {
        Self { hub, origin, account, tokens: None }
    }

    /// The same caller showing these lock tokens with all it does.
    #[must_use]
    pub fn holding(self, tokens: Vec<String>) -> Self {
        Self { tokens: if tokens.is_empty() { None } else { Some(tokens.into()) }, ..self }
    }

    /// Lock tokens it shows.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        self.tokens.as_deref().unwrap_or_default()
    }

    /// Sign-in name; empty for a guest.
    #[must_use]
    pub fn name(&self) -> &str {
        self.account.as_deref().map_or("", |account| account.name.as_str())
    }

    /// Not signed in.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.account.is_none()
    }

    /// The account, unless a guest.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    /// Cancelled when the account is disabled, removed, signed out or changed in what admitted this caller; `None` for
    /// a guest, who was not admitted by anything.
    #[must_use]
    pub fn ended(&self) -> Option<&CancellationToken> {
        self.account.as_deref().map(|account| &account.ended)
    }

    /// The same caller at another origin, if its account still admits it there.
    #[must_use]
    pub fn again(&self, origin: &Origin) -> Option<Self> {
        let account = self.account.as_ref()?;
        let known = self.hub.view().admits(Some(account));
        let welcome = known && account.may_come_from(origin.peer.ip()) && account.may_use(origin.door);
        welcome.then(|| self.clone().at(origin.clone()))
    }

    /// The account still admits this caller.
    ///
    /// # Errors
    /// `Unauthenticated`.
    pub(crate) fn admitted(&self) -> Result<()> {
        match self.hub.view().admits(self.account()) {
            true => Ok(()),
            false => Err(access_ended()),
        }
    }

    /// The same, as far as it is known already: for each piece of a transfer.
    pub(crate) fn go_on(&self) -> Result<()> {
        match self.has_ended() {
            true => Err(access_ended()),
            false => Ok(()),
        }
    }

    /// The sign-in has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended().is_some_and(CancellationToken::is_cancelled)
    }

    pub(crate) fn who(&self) -> Who {
        Who { origin: self.origin.clone(), account: self.account.clone() }
    }

    /// Where it asks from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same caller on a connection that changed (TLS came up).
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The hub behind it.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What FTP shows it as `/`: the folder it is confined to, or a device's own folder.
    #[must_use]
    pub fn top(&self) -> TreePath {
        self.account.as_deref().map_or_else(TreePath::root, |account| account.top.clone())
    }

    /// A device may also name this path from the root of the tree: it is in its own folder, or in a space that grants it something by name.
    #[must_use]
    pub fn may_name_in_full(&self, path: &TreePath) -> bool {
        let Some(account) = self.account() else { return false };
        let by_name = |space: &Space| {
            space.grants.iter().any(|(to, _)| matches!(to, Principal::Device(name) if *name == account.name))
        };
        let view = self.hub.view();
        account.kind == AccountKind::Device
            && (path.is_in(&account.top)
                || view.space_of(path).is_some_and(|(space, _)| space.role == SpaceRole::Shared && by_name(space)))
    }

    /// Where FTP starts: a device's landing folder, else the root.
    #[must_use]
    pub fn start(&self) -> TreePath {
        self.account.as_deref().map_or_else(TreePath::root, Account::start)
    }

    /// Some space covers the path: it is more than a folder on the way to others.
    #[must_use]
    pub fn is_in_space(&self, path: &TreePath) -> bool {
        self.hub.view().space_of(path).is_some()
    }

    /// A space is mounted at this very path.
    #[must_use]
    pub fn is_space(&self, path: &TreePath) -> bool {
        self.hub.view().space(&path.to_string()).is_some()
    }

    /// Both paths are in the same space, as far as this caller may know.
    #[must_use]
    pub fn is_one_space(&self, one: &TreePath, other: &TreePath) -> bool {
        let view = self.hub.view();
        let space = |path| match view.is_hidden(self.account(), path) {
            true => view.apparent_space(self.account(), path),
            false => view.space_of(path).map(|(space, _)| space),
        };
        space(one).map(|space| &space.key) == space(other).map(|space| &space.key)
    }

    /// What it may do at a path.
    #[must_use]
    pub fn rights(&self, path: &TreePath) -> Verbs {
        self.hub.view().verbs(self.account(), path)
    }

    /// What it would seem to be allowed at a path if nothing were hidden there: chooses words, gives no right.
    #[must_use]
    pub fn seeming_rights(&self, path: &TreePath) -> Verbs {
        self.hub.view().apparent(self.account(), path)
    }

    /// It may add files there and see nothing of what is there.
    #[must_use]
    pub fn is_unseeing(&self, path: &TreePath) -> bool {
        self.hub.view().adds_unseeing(self.account(), path)
    }

    /// The verdict on one verb at one path; see [`View::allow`].
    ///
    /// # Errors
    /// `Unauthenticated`, `NotFound` or `Denied`.
    pub fn allow(&self, verb: Verb, path: &TreePath) -> Result<()> {
        self.hub.view().allow(self.account(), verb, path)
    }

    /// The verdict that there would be if nothing were hidden there. What is done next meets the true one.
    ///
    /// # Errors
    /// As [`Caller::allow`].
    pub fn allow_seemingly(&self, verb: Verb, path: &TreePath) -> Result<()> {
        match self.seeming_rights(path).has(verb) {
            true => Ok(()),
            false => self.allow(verb, path),
        }
    }

    /// What is at a path. A folder shows itself to whoever may do anything in it, a file to who may list or read it.
    ///
    /// # Errors
    /// `NotFound` when it is not there or not for this caller.
    pub async fn stat(&self, path: &TreePath) -> Result<Entry> {
        let view = self.hub.view();
        let rights = view.verbs(self.account(), path);
        if let Some((space, rel)) = view.space_of(path) {
            if rights.is_empty() && view.mounts_in(self.account(), path).is_empty() {
                if view.is_hidden(self.account(), path) {
                    return Err(nothing());
                }
                view.allow(self.account(), Verb::Read, path)?;
            }
            match space.volume.stat(&rel).await {
                Ok(node) => return shown(path, node, rights),
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                Err(_) => {}
            }
        }
        self.virtual_folder(&view, path)
    }

    /// A folder that is there only because spaces are mounted below it.
    fn virtual_folder(&self, view: &View, path: &TreePath) -> Result<Entry> {
        let known = path.is_root() || !view.mounts_in(self.account(), path).is_empty();
        if !known {
            if self.is_guest() && view.verbs(None, path).is_empty() {
                view.allow(None, Verb::Read, path)?;
            }
            return Err(nothing());
        }
        Ok(Entry {
            path: path.clone(),
            node: folder_node(path.name()),
            rights: view.verbs(self.account(), path).with(Verb::List),
        })
    }

    /// Begins listing a folder. Needs `list`.
    ///
    /// # Errors
    /// `WrongType` for a file.
    pub async fn list(&self, folder: &TreePath) -> Result<Listing> {
        self.allow(Verb::List, folder)?;
        let entry = self.stat(folder).await?;
        if entry.node.kind != NodeKind::Folder {
            return Err(Error::new(Kind::WrongType, "this is not a folder"));
        }
        Ok(Listing::new(self.clone(), folder.clone()))
    }

    /// Opens a file for reading. Needs `read`.
    ///
    /// # Errors
    /// `WrongType` for a folder.
    pub async fn open(&self, path: &TreePath) -> Result<Download> {
        let view = self.hub.view();
        view.allow(self.account(), Verb::Read, path)?;
        let Some((space, rel)) = view.space_of(path) else {
            return Err(Error::new(Kind::WrongType, "this is a folder, not a file"));
        };
        let opened = space.volume.open(&rel).await?;
        if space.role == SpaceRole::Mailbox {
            crate::hub::mail::note_read(self, space, &rel);
        }
        Ok(Download::new(opened))
    }

    /// Begins writing a file. Needs `create` or, where something is there, `overwrite` (unless the space keeps both).
    ///
    /// # Errors
    /// `NotFound` when its folder is missing, `OverQuota`, `TooLarge`, `Exists` when the space refuses to replace, `WrongType`.
    pub async fn write(&self, path: &TreePath, options: WriteOptions) -> Result<Upload> {
        let view = self.hub.view();
        let Some((space, rel)) = view.space_of(path) else {
            view.allow(self.account(), Verb::Create, path)?;
            return Err(Error::new(Kind::Denied, "no space is here: files live in one of the folders shown"));
        };
        let space = space.clone();
        let mut options = options;
        if options.mode == WriteMode::Append && view.adds_unseeing(self.account(), path) {
            options.mode = WriteMode::Replace;
        }
        let there = self.precheck(&view, &space, &rel, path, &options).await?;
        let start = self.starting_point(&view, &space, path, there.as_ref(), options.mode).await?;
        let (body, base, hold) = start;
        // What its own broken upload holds is not in its way.
        let more = options.size.map(|size| size.saturating_sub(hold.as_ref().map_or(0, Hold::bytes)));
        let checked = self.check_room(&view, &space, &rel, there.is_some(), more).await;
        let quota_left = match checked {
            Err(error) if error.kind() == Kind::OverQuota && self.drop_own_partial(path, hold.is_none()).await => {
                self.check_room(&view, &space, &rel, there.is_some(), more).await?
            }
            Err(error) => {
                self.put_back(path, &space, body, hold).await;
                return Err(error);
            }
            Ok(left) => left,
        };
        let quota_left = quota_left.map(|left| left.saturating_add(hold.as_ref().map_or(0, Hold::bytes)));
        let replaces = there.is_some() && !options.unique && space.overwrite == Overwrite::Replace;
        let credit = if replaces { self.counted(&space, &rel).await? } else { 0 };
        let digest = options.digest;
        let goal = Goal::File { path: path.clone(), options, base };
        Ok(Upload::begin(self.clone(), space, goal, body, quota_left, digest).holding(hold, credit))
    }

    /// Who begins a file anew does not need what broke off at its path.
    async fn drop_own_partial(&self, path: &TreePath, anew: bool) -> bool {
        anew && self.hub.drop_partial(self.name(), path).await
    }

    /// The broken upload that was taken to be gone on with is kept on.
    async fn put_back(&self, path: &TreePath, space: &Arc<Space>, body: Incoming, hold: Option<Hold>) {
        let Some(hold) = hold else { return };
        if let Some((id, stage)) = body.stage {
            let partial = Partial { space: space.clone(), id, len: stage.len(), since: now(), hold };
            self.hub.keep_partial(self.name(), path, partial).await;
        }
    }

    /// Refuses before a byte is taken what the commit would refuse.
    pub(super) async fn precheck(
        &self,
        view: &View,
        space: &Space,
        rel: &RelPath,
        path: &TreePath,
        options: &WriteOptions,
    ) -> Result<Option<Node>> {
        if rel.is_root() {
            view.allow(self.account(), Verb::Create, path)?;
            return Err(Error::new(Kind::WrongType, "this is a folder, not a file"));
        }
        if view.verbs(self.account(), path).is_empty() {
            view.allow(self.account(), Verb::Create, path)?;
        }
        let unseeing = view.adds_unseeing(self.account(), path);
        let there = match space.volume.stat(rel).await {
            // The file will get another name; a folder shows itself.
            Ok(node) if unseeing && node.kind != NodeKind::Folder => None,
            Ok(node) => Some(node),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let filled = there.as_ref().is_some_and(|node| self.fills(node, path, &options.tokens));
        let keeps_both = unseeing || options.unique || (space.overwrite == Overwrite::KeepBoth && !filled);
        let whole = unseeing || matches!(options.mode, WriteMode::Continue(_) | WriteMode::Replace);
        let replaces = there.is_some() && !(keeps_both && whole);
        let verb = match &there {
            Some(node) if replaces && !filled => options.mode.changes(node.size),
            _ => Verb::Create,
        };
        view.allow(self.account(), verb, path)?;
        match &there {
            Some(node) if node.kind == NodeKind::Folder => {
                return Err(Error::new(Kind::WrongType, "a folder has this name"));
            }
            Some(node) if node.kind == NodeKind::Special => return Err(special()),
            Some(_) if replaces && !filled && space.overwrite == Overwrite::Refuse => {
                return Err(Error::new(Kind::Exists, "the name is taken and files here are never replaced"));
            }
            // Made folders would tell by their names which are taken by files.
            None if !options.folders || unseeing => self.folder_is_there(space, rel, unseeing).await?,
            Some(_) | None => {}
        }
        if options.only_if.is_some_and(|wanted| wanted != there.as_ref().map(|node| node.tag)) {
            return Err(Error::new(Kind::Conflict, "it was changed by someone else meanwhile"));
        }
        match path.parent().filter(|_| unseeing) {
            Some(folder) => self.unlocked(&folder, &options.tokens, Reach::Content)?,
            None => self.unlocked(path, &options.tokens, if replaces { Reach::Content } else { Reach::Member })?,
        };
        Ok(there)
    }

    /// An empty file on which the caller holds a lock is one that it made to fill it (RFC 4918 §7.3): that replaces nothing.
    pub(super) fn fills(&self, node: &Node, path: &TreePath, tokens: &[String]) -> bool {
        node.kind == NodeKind::File && node.size == 0 && self.holds(path, tokens)
    }

    async fn folder_is_there(&self, space: &Space, rel: &RelPath, unseeing: bool) -> Result<()> {
        let Some(parent) = rel.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        match space.volume.stat(&parent).await {
            Ok(node) if node.kind == NodeKind::Folder => Ok(()),
            Ok(_) if !unseeing => Err(Error::new(Kind::WrongType, "a part of the path is a file, not a folder")),
            Ok(_) => Err(Error::new(Kind::NotFound, "the folder does not exist")),
            Err(error) if error.kind() == Kind::NotFound || (unseeing && error.kind() == Kind::WrongType) => {
                Err(Error::new(Kind::NotFound, "the folder does not exist"))
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing, the file to append to, or the broken upload to go on with.
    async fn starting_point(
        &self,
        view: &View,
        space: &Arc<Space>,
        path: &TreePath,
        there: Option<&Node>,
        mode: WriteMode,
    ) -> Result<(Incoming, Base, Option<Hold>)> {
        let fresh = || (Incoming::new(view.settings.storage.inline), Base::default(), None);
        let behind = |(body, base)| (body, base, None);
        match mode {
            WriteMode::Replace | WriteMode::Continue(0) | WriteMode::Resume(0) => Ok(fresh()),
            WriteMode::Append => self.append_base(space, path, None).await.map(behind),
            WriteMode::Continue(from) | WriteMode::Resume(from) => {
                if self.hub.inner.partials.len(self.name(), path).is_some_and(|len| len >= from)
                    && let Some(partial) = self.hub.inner.partials.take(self.name(), path)
                {
                    let mut stage = space.volume.stage(&partial.id).await?;
                    stage.truncate(from).await?;
                    let mut hold = partial.hold;
                    hold.shrink(from);
                    return Ok((
                        Incoming::recorded(partial.id, stage),
                        Base { len: from, ..Base::default() },
                        Some(hold),
                    ));
                }
                match there {
                    Some(_) if mode == WriteMode::Resume(from) => {
                        self.append_base(space, path, Some(from)).await.map(behind)
                    }
                    Some(_) | None => {
                        Err(Error::new(Kind::Invalid, format!("cannot go on at {from}: nothing is here to go on with")))
                    }
                }
            }
        }
    }

    /// Length of a broken upload of this account that can be resumed at this path.
    #[must_use]
    pub fn resumable(&self, path: &TreePath) -> Option<u64> {
        self.hub.inner.partials.len(self.name(), path)
    }

    /// The turnstile: allow, plan, commit with history and intents, publish; plans again on conflict.
    ///
    /// # Errors
    /// The verdict's, the plan's, the store's.
    pub async fn perform<A: Act>(&self, act: A) -> Result<A::Yield> {
        self.hub.carry(self, &act).await
    }
}

/// A file needs `list` or `read` to be seen; a folder any verb, so that a device can change into its drop box.
fn shown(path: &TreePath, mut node: Node, rights: Verbs) -> Result<Entry> {
    let seen = node.kind == NodeKind::Folder || rights.has(Verb::List) || rights.has(Verb::Read);
    if !seen {
        return Err(nothing());
    }
    path.name().clone_into(&mut node.name);
    Ok(Entry { path: path.clone(), node, rights })
}

/// A link is not replaced: what it points to may be meant, and is never touched.
pub(crate) fn special() -> Error {
    Error::new(Kind::WrongType, "a link or a special file has this name; rename or delete it first")
}

fn nothing() -> Error {
    Error::new(Kind::NotFound, "no such file or folder")
}

/// What stands for a folder that no volume holds.
pub(super) fn folder_node(name: &str) -> Node {
    Node { name: name.to_owned(), kind: NodeKind::Folder, size: 0, modified: 0, tag: 0 }
}
