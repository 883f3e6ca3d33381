//! Data connections and what travels on them: PASV, EPSV, PORT, EPRT, PROT; RETR, STOR, APPE, STOU.

use std::net::SocketAddr;
use std::time::Instant;

use super::command::Epsv;
use super::reply::Reply;
use super::session::{Running, Session, Turn, log_fault, say};
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, Receipt, TreePath, WriteMode, WriteOptions};
use crate::net::side;
use crate::proto::dialogue::{Lane, Source};

/// How the next data connection is made.
pub(super) enum Data {
    Active(SocketAddr),
    Passive(side::Passive),
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
    fn wait_for_peer(&mut self) -> Result<u16> {
        self.data = None;
        let listener = side::Passive::bind(&self.origin, self.door.ports.clone()).map_err(|error| {
            tracing::error!(%error, ports = self.door.settings.passive_ports, "no port for a data connection");
            Error::new(Kind::Unavailable, "no port is free for a data connection; try again")
        })?;
        let port = listener.port;
        self.data = Some(Data::Passive(listener));
        Ok(port)
    }

    pub(super) async fn passive(&mut self) -> Result<Turn> {
        if self.only_epsv {
            return Ok(say(501, "EPSV ALL was said: only EPSV from now on"));
        }
        let address = match side::announced(&self.door.settings.passive_address, &self.origin).await {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(%error, name = self.door.settings.passive_address, "ftp: no address for PASV");
                return Ok(say(425, "PASV is for IPv4; use EPSV"));
            }
        };
        let port = self.wait_for_peer()?;
        let [a, b, c, d] = address.octets();
        let [high, low] = port.to_be_bytes();
        // Exactly this text: devices scan for the bracket and the commas.
        Ok(say(227, format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low})")))
    }

    pub(super) fn extended_passive(&mut self, asked: Epsv) -> Result<Turn> {
        let ours = if self.origin.local.ip().to_canonical().is_ipv4() { 1 } else { 2 };
        match asked {
            Epsv::All => {
                self.only_epsv = true;
                return Ok(say(200, "EPSV ALL it is"));
            }
            Epsv::Family(family) if family != ours => {
                return Ok(say(522, format!("network protocol not supported, use ({ours})")));
            }
            Epsv::Any | Epsv::Family(_) => {}
        }
        let port = self.wait_for_peer()?;
        Ok(say(229, format!("Entering Extended Passive Mode (|||{port}|)")))
    }

    /// RFC 2577: only to the client itself and never to a service port, checked before anything is connected.
    pub(super) fn active(&mut self, to: SocketAddr, extended: bool) -> Turn {
        self.data = None;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.only_epsv {
            return say(501, "EPSV ALL was said: only EPSV from now on");
        }
        if !self.door.settings.active {
            return say(502, "active mode is off here; use EPSV or PASV");
        }
        if to.ip() != self.origin.peer.ip().to_canonical() || to.port() < FIRST_CLIENT_PORT {
            tracing::warn!(peer = %self.origin.peer, asked = %to, link = self.origin.link, "ftp: bounce refused");
            return say(504, "only to your own address and a port from 1024");
        }
        self.data = Some(Data::Active(to));
        say(200, if extended { "EPRT ok" } else { "PORT ok" })
    }

    pub(super) fn protect(&mut self, level: u8) -> Turn {
        if !self.origin.secure {
            return say(503, "AUTH TLS first");
        }
        match level {
            b'C' if !self.door.plain_is_fine(self.origin.peer.ip()) => say(534, "data must be protected here"),
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
        if !self.protected && !self.door.plain_is_fine(self.origin.peer.ip()) {
            return Err(Reply::new(521, "data must be protected here: send PROT P first"));
        }
        let tls = if self.protected { self.tls.clone() } else { None };
        if self.protected && tls.is_none() {
            return Err(Reply::new(425, "TLS is not offered for data on this port"));
        }
        let tls = match way {
            Way::In => tls.map(|tls| tls.silent()),
            Way::Out => tls,
        };
        Ok(Lane::Side(match data {
            Data::Active(to) => side::Lane::Active { to, tls },
            Data::Passive(listener) => side::Lane::Passive { listener, tls },
        }))
    }

    pub(super) async fn retrieve(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let offset = std::mem::take(&mut self.offset);
        let lane = match self.lane(Way::Out) {
            Ok(lane) => lane,
            Err(reply) => return Ok(Turn::Say(reply)),
        };
        let begun = Instant::now();
        let path = self.resolve(caller, name)?;
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
        self.running = Some(Running { verb: "RETR", path, begun });
        Ok(Turn::Give { prompt, source: Source::File(download, offset..size), framing: self.framing(), lane })
    }

    pub(super) async fn store(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let path = self.resolve(caller, name)?;
        let mode = match self.offset {
            0 => WriteMode::Replace,
            offset => WriteMode::Resume(offset),
        };
        let options = WriteOptions { mode, ..WriteOptions::default() };
        self.upload(caller, "STOR", path, options, "ready for the file".into()).await
    }

    /// Goes on with what is there, or with a broken upload of this account that nobody else sees.
    pub(super) async fn append(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let path = self.resolve(caller, name)?;
        let mode = match caller.resumable(&path) {
            Some(length) if caller.stat(&path).await.is_err() => WriteMode::Resume(length),
            _ => WriteMode::Append,
        };
        let options = WriteOptions { mode, ..WriteOptions::default() };
        self.upload(caller, "APPE", path, options, "ready for the rest of the file".into()).await
    }

    /// RFC 1123 §4.1.2.9: the name is told in the 150 already, so it is chosen here: the one asked for while it is free.
    pub(super) async fn store_unique(&mut self, caller: &Caller, name: Option<&str>) -> Result<Turn> {
        let asked = match name {
            Some(name) => self.resolve(caller, name)?,
            None => self.cwd.join("upload")?,
        };
        let taken = name.is_none() || caller.stat(&asked).await.is_ok();
        let path = match (taken, asked.parent()) {
            (true, Some(folder)) => folder.join(&fresh(asked.name()))?,
            _ => asked,
        };
        let options = WriteOptions { unique: true, ..WriteOptions::default() };
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
        self.offset = 0;
        let size = self.announced.take();
        let lane = match self.lane(Way::In) {
            Ok(lane) => lane,
            Err(reply) => return Ok(Turn::Say(reply)),
        };
        let begun = Instant::now();
        let options = WriteOptions { size, keep_partial: self.door.settings.keep_partial, ..options };
        match caller.write(&path, options).await {
            Ok(upload) => {
                self.running = Some(Running { verb, path, begun });
                let prompt = Some(Reply::new(150, prompt));
                Ok(Turn::Take { prompt, intake: Box::new(upload), framing: self.framing(), lane })
            }
            Err(error) => {
                log_fault(&error);
                Ok(self.noted(verb, &path, 0, begun, Reply::from(&error)))
            }
        }
    }

    /// An upload ended.
    pub(super) fn received(&mut self, outcome: Result<Receipt>) -> Turn {
        let Some(running) = self.running.take() else { return Turn::Wait };
        match outcome {
            Ok(receipt) => {
                let words = match receipt.path == running.path {
                    true => format!("stored, {} bytes", receipt.bytes),
                    false => format!("stored as {}, {} bytes", receipt.path.name(), receipt.bytes),
                };
                self.noted(running.verb, &receipt.path, receipt.bytes, running.begun, Reply::new(226, words))
            }
            Err(error) => {
                log_fault(&error);
                self.noted(running.verb, &running.path, 0, running.begun, Reply::from(&error))
            }
        }
    }

    /// A download or listing ended.
    pub(super) fn sent(&mut self, outcome: Result<u64>) -> Turn {
        let Some(running) = self.running.take() else { return Turn::Wait };
        let (bytes, reply) = match outcome {
            Ok(bytes) => (bytes, Reply::new(226, format!("sent, {bytes} bytes"))),
            Err(error) => {
                log_fault(&error);
                (0, Reply::from(&error))
            }
        };
        self.noted(running.verb, &running.path, bytes, running.begun, reply)
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
