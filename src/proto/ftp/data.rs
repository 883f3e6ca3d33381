//! Data connections and what travels on them: PASV, EPSV, PORT, EPRT, PROT; RETR, STOR, APPE, STOU.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use super::command::Epsv;
use super::hint::{self, Told};
use super::reply::Reply;
use super::session::{Running, Session, Turn, log_fault, say};
use super::{CloseNotify, Hangup};
use crate::error::{Error, Result, out_of_descriptors};
use crate::hub::{AccountKind, Caller, Receipt, Soaked, TreePath, Upload, WriteMode, WriteOptions};
use crate::net::side;
use crate::proto::dialogue::{Intake, Lane, Left, NoLane, Source};

/// How the next data connection is made.
pub(super) enum Data {
    Active(SocketAddr),
    /// With the address that PASV told.
    Passive(side::Passive, Option<Ipv4Addr>),
}

impl Data {
    fn told(&self) -> Told {
        match self {
            Self::Active(to) => Told::Active(*to),
            Self::Passive(listener, address) => Told::Passive(*address, listener.port),
        }
    }
}

/// Which way the bytes of a data connection go.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In,
    Out,
}

/// Ports below belong to services; nobody makes us talk to them.
const FIRST_CLIENT_PORT: u16 = 1_024;

impl Session {
    /// Another way is chosen, or none any more. That nobody came until now is worth a word.
    pub(super) fn forget_data(&mut self) {
        let Some(data) = self.data.take() else { return };
        let told = data.told();
        if let Data::Passive(listener, _) = *data
            && let Some(waited) = listener.in_vain_for()
        {
            hint::in_vain(&self.door, &self.origin, told, waited);
        }
    }

    fn wait_for_peer(&mut self, address: Option<Ipv4Addr>) -> std::result::Result<u16, Reply> {
        self.forget_data();
        let bound = side::Passive::bind(&self.origin, self.door.ports.clone(), self.door.settings.data_peer);
        let listener = bound.map_err(|error| {
            hint::no_port(&self.door, &self.origin, &error);
            let words = out_of_descriptors(&error).unwrap_or("no port is free for a data connection");
            Reply::new(425, format!("{words}; try again"))
        })?;
        let port = listener.port;
        self.data = Some(Box::new(Data::Passive(listener, address)));
        Ok(port)
    }

    pub(super) async fn passive(&mut self) -> Turn {
        if self.only_epsv {
            return say(501, "EPSV ALL was said: only EPSV from now on");
        }
        let address = match self.door.outside(&self.origin).address(&self.origin).await {
            Ok(address) => address,
            Err(error) => {
                hint::no_address(&self.door, &self.origin, &error);
                return say(425, "PASV is for IPv4; use EPSV");
            }
        };
        let port = match self.wait_for_peer(Some(address)) {
            Ok(port) => port,
            Err(reply) => return Turn::Say(reply),
        };
        let [a, b, c, d] = address.octets();
        let [high, low] = port.to_be_bytes();
        // Exactly this text: devices scan for the bracket and the commas.
        say(227, format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low})"))
    }

    pub(super) fn extended_passive(&mut self, asked: Epsv) -> Turn {
        let ours = if self.origin.local.ip().to_canonical().is_ipv4() { 1 } else { 2 };
        match asked {
            Epsv::All => {
                self.only_epsv = true;
                return say(200, "EPSV ALL it is");
            }
            Epsv::Family(family) if family != ours => {
                return say(522, format!("network protocol not supported, use ({ours})"));
            }
            Epsv::Any | Epsv::Family(_) => {}
        }
        match self.wait_for_peer(None) {
            Ok(port) => say(229, format!("Entering Extended Passive Mode (|||{port}|)")),
            Err(reply) => Turn::Say(reply),
        }
    }

    /// RFC 2577: only to the client itself and never to a service port, checked before anything is connected.
    pub(super) fn active(&mut self, to: SocketAddr, extended: bool) -> Turn {
        self.forget_data();
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.only_epsv {
            return say(501, "EPSV ALL was said: only EPSV from now on");
        }
        if !self.policy.active {
            return say(502, "active mode is off here; use EPSV or PASV");
        }
        if to.ip() != self.origin.peer.ip().to_canonical() || to.port() < FIRST_CLIENT_PORT {
            hint::bounce(&self.origin, to);
            return say(504, "only to your own address and a port from 1024");
        }
        self.data = Some(Box::new(Data::Active(to)));
        say(200, if extended { "EPRT ok" } else { "PORT ok" })
    }

    pub(super) fn protect(&mut self, level: u8) -> Turn {
        if !self.origin.secure {
            return say(503, "AUTH TLS first");
        }
        match level {
            b'C' if !self.policy.plain_is_fine(self.origin.peer.ip()) => say(534, "data must be protected here"),
            b'C' => {
                self.protected = false;
                say(200, "data in the clear")
            }
            b'P' => {
                self.protected = true;
                say(200, "data protected")
            }
            b'S' | b'E' => say(536, "only PROT C and PROT P"),
            _ => say(504, "only PROT C and PROT P"),
        }
    }

    /// Takes the prepared data connection; each serves one transfer.
    pub(super) fn lane(&mut self, way: Way) -> std::result::Result<Lane, Reply> {
        let Some(data) = self.data.take() else {
            return Err(Reply::new(425, "no data connection: send EPSV or PASV first"));
        };
        if !self.protected && !self.policy.plain_is_fine(self.origin.peer.ip()) {
            return Err(Reply::new(521, "data must be protected here: send PROT P first"));
        }
        let tls = if self.protected { self.tls.clone() } else { None };
        if self.protected && tls.is_none() {
            return Err(Reply::new(425, "TLS is not offered for data on this port"));
        }
        let settings = &self.door.settings;
        let (link, reuse, uploads) = (self.origin.link, settings.require_reuse, matches!(way, Way::In));
        self.told = Some(data.told());
        let from = self.origin.local.ip().to_canonical();
        Ok(Lane::Side(side::Lane {
            way: match *data {
                Data::Active(to) => side::Way::Active { to, from },
                Data::Passive(listener, _) => side::Way::Passive(listener),
            },
            secured: tls.map(|tls| side::Secured { tls, link, reuse, uploads }),
            rates: self.policy.rates(way),
            wait: settings.data_wait.0,
            strict: settings.close_notify == CloseNotify::Strict,
        }))
    }

    /// Tells the log why a transfer had no data connection.
    fn hint(&mut self, error: &Error) {
        let no_lane = std::error::Error::source(error).and_then(|source| source.downcast_ref::<NoLane>());
        if let (Some(told), Some(NoLane(error))) = (self.told.take(), no_lane) {
            hint::failed(&self.door, &self.origin, told, error);
        }
    }

    pub(super) async fn retrieve(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let (offset, _) = self.take_foretold();
        let lane = match self.lane(Way::Out) {
            Ok(lane) => lane,
            Err(reply) => return Ok(Turn::Say(reply)),
        };
        let begun = Instant::now();
        let path = self.resolve(caller, name).await?;
        let download = match caller.open(&path).await {
            Ok(download) => download,
            Err(error) => {
                log_fault(&error);
                return Ok(self.noted("RETR", &path, 0, begun, Reply::from(&error)));
            }
        };
        let size = download.node().size;
        if offset > size {
            return Ok(say(554, format!("REST {offset} is beyond the end: the file has {size} bytes")));
        }
        let prompt = Some(Reply::new(150, format!("sending {} ({} bytes)", path.name(), size - offset)));
        self.running = Some(Box::new(Running { verb: "RETR", path, begun }));
        Ok(Turn::Give { prompt, source: Source::File(download, offset..size), framing: self.framing(), lane })
    }

    /// What REST and ALLO said counts for the next transfer only, whatever becomes of it.
    fn take_foretold(&mut self) -> (u64, Option<u64>) {
        (std::mem::take(&mut self.offset), self.announced.take())
    }

    pub(super) async fn store(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let (offset, size) = self.take_foretold();
        let path = self.resolve(caller, name).await?;
        let mode = if offset == 0 { WriteMode::Replace } else { WriteMode::Resume(offset) };
        let options = WriteOptions { mode, size, ..WriteOptions::default() };
        self.upload(caller, "STOR", path, options, "ready for the file".into()).await
    }

    /// Goes on with what is there, or with a broken upload of this account that nobody else sees.
    pub(super) async fn append(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let (_, size) = self.take_foretold();
        let path = self.resolve(caller, name).await?;
        let mode = match caller.resumable(&path) {
            Some(length) if caller.stat(&path).await.is_err() => WriteMode::Resume(length),
            _ => WriteMode::Append,
        };
        let options = WriteOptions { mode, size, ..WriteOptions::default() };
        self.upload(caller, "APPE", path, options, "ready for the rest of the file".into()).await
    }

    /// RFC 1123 §4.1.2.9: the name is told in the 150 already, so it is chosen here: the one asked for while it is free.
    pub(super) async fn store_unique(&mut self, caller: &Caller, name: Option<&str>) -> Result<Turn> {
        let (_, size) = self.take_foretold();
        let asked = match name {
            Some(name) => self.resolve(caller, name).await?,
            None => self.cwd.join("upload")?,
        };
        let taken = name.is_none() || caller.is_unseeing(&asked) || caller.stat(&asked).await.is_ok();
        let path = match (taken, asked.parent()) {
            (true, Some(folder)) => folder.join(&fresh(asked.name()))?,
            _ => asked,
        };
        let options = WriteOptions { unique: true, size, ..WriteOptions::default() };
        let prompt = format!("FILE: {}", Self::shown(caller, &path));
        self.upload(caller, "STOU", path, options, prompt).await
    }

    async fn upload(
        &mut self,
        caller: &Caller,
        verb: &'static str,
        path: TreePath,
        options: WriteOptions,
        prompt: String,
    ) -> Result<Turn> {
        let lane = match self.lane(Way::In) {
            Ok(lane) => lane,
            Err(reply) => return Ok(Turn::Say(reply)),
        };
        let begun = Instant::now();
        let announced = options.size;
        let keeps = self.door.settings.keep_partial;
        let options = WriteOptions { keep_partial: keeps, ..options };
        match caller.write(&path, options).await {
            Ok(upload) => {
                self.running = Some(Box::new(Running { verb, path, begun }));
                let prompt = Some(Reply::new(150, prompt));
                let rude = match self.door.settings.hangup {
                    Hangup::Devices => caller.account().is_some_and(|account| account.kind == AccountKind::Device),
                    Hangup::Keep => false,
                    Hangup::Publish => true,
                };
                let resumable = keeps && !caller.is_guest();
                let intake = Box::new(Arriving { upload, announced, rude, resumable });
                Ok(Turn::Take { prompt, intake, framing: self.framing(), lane })
            }
            Err(error) => {
                log_fault(&error);
                Ok(self.noted(verb, &path, 0, begun, Reply::from(&error)))
            }
        }
    }

    /// An upload ended.
    pub(super) fn received(&mut self, came: u64, outcome: Result<Receipt>) -> Turn {
        let Some(running) = self.running.take() else { return Turn::Wait };
        let turn = match outcome {
            Ok(receipt) => {
                let words = match receipt.path == running.path {
                    true => format!("stored, {} bytes", receipt.bytes),
                    false => format!("stored as {}, {} bytes", receipt.path.name(), receipt.bytes),
                };
                self.noted(running.verb, &receipt.path, receipt.bytes, running.begun, Reply::new(226, words))
            }
            Err(error) => {
                log_fault(&error);
                self.hint(&error);
                self.noted(running.verb, &running.path, came, running.begun, Reply::from(&error))
            }
        };
        self.weigh_transfer(running.verb, &turn);
        turn
    }

    /// A download or listing ended.
    pub(super) fn sent(&mut self, bytes: u64, outcome: Result<()>) -> Turn {
        let Some(running) = self.running.take() else { return Turn::Wait };
        let reply = match outcome {
            // A listing over the control connection: this is its last line.
            Ok(()) if running.verb == "STAT" => Reply::new(213, "End"),
            Ok(()) => Reply::new(226, format!("sent, {bytes} bytes")),
            Err(error) => {
                log_fault(&error);
                self.hint(&error);
                Reply::from(&error)
            }
        };
        let turn = self.noted(running.verb, &running.path, bytes, running.begun, reply);
        self.weigh_transfer(running.verb, &turn);
        turn
    }
}

/// A file on its way in, with what is known about its sender.
struct Arriving {
    upload: Upload,
    /// ALLO.
    announced: Option<u64>,
    /// It may hang up without waiting for the reply although all is sent.
    rude: bool,
    /// What came is kept when it breaks off.
    resumable: bool,
}

#[async_trait]
impl Intake for Arriving {
    async fn push(&mut self, chunk: Bytes) -> Result<()> {
        self.upload.push(chunk).await
    }

    async fn soak(&mut self, from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        self.upload.soak(from).await
    }

    fn is_resumable(&self) -> bool {
        self.resumable
    }

    fn remark(&mut self, what: &'static str) {
        self.upload.remark(what);
    }

    async fn commit(self: Box<Self>) -> Result<Option<Receipt>> {
        self.upload.commit().await.map(Some)
    }

    async fn abandon(self: Box<Self>) {
        self.upload.abandon().await;
    }

    /// docs/decisions/0002-hang-up.md
    fn stands(&self, bytes: u64, left: Left) -> bool {
        match self.announced {
            Some(announced) => bytes == announced || self.upload.len() == announced,
            None => self.rude && left == Left::Behind,
        }
    }
}

/// A name nobody has, with the ending of the one asked for.
fn fresh(name: &str) -> String {
    let id = uuid::Uuid::now_v7().simple();
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem}-{id}.{ending}"),
        _ => format!("{name}-{id}"),
    }
}
