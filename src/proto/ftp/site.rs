//! Commands about the server itself and its room: HOST, ALLO, AVBL, SITE COPY, SITE QUOTA.

use super::reply::Reply;
use super::session::{Session, Turn, log_fault, say};
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, NodeKind, TreePath};
use crate::units::ByteSize;

impl Session {
    /// RFC 7151 §3.2: said before the sign-in. There is one tree, so the name changes nothing but what is refused.
    pub(super) fn host(&mut self, name: String) -> Turn {
        if self.is_signed_in() {
            return say(503, "HOST comes before USER");
        }
        let hosts = &self.door.settings.hosts;
        if !hosts.is_empty() && !hosts.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return say(504, "no such host here");
        }
        // Its data connections are to show the same certificate.
        self.tls = self.tls.take().map(|tls| tls.named(&name));
        self.host = Some(name);
        say(220, "host noted, sign in with USER and PASS")
    }

    /// RFC 959 §4.1.3, as devices understand it: 200 (a Dahua camera loops on 202) when so much fits where it stands, else 552.
    pub(super) async fn allocate(&mut self, caller: &Caller, size: u64) -> Turn {
        match caller.fits(&self.cwd, size).await {
            Ok(()) => {
                self.announced = Some(size);
                say(200, "noted")
            }
            Err(error) => {
                log_fault(&error);
                say(552, error.public().to_owned())
            }
        }
    }

    /// draft-peterson-streamlined-ftp-command-extensions §4: bytes that would still fit.
    pub(super) async fn available(&self, caller: &Caller, name: Option<&str>) -> Result<Turn> {
        let path = self.resolve(caller, name.unwrap_or(".")).await?;
        if caller.stat(&path).await?.node.kind != NodeKind::Folder {
            return Err(Error::new(Kind::WrongType, "this is a file, not a folder"));
        }
        Ok(say(213, caller.room(&path).await?.left.to_string()))
    }

    pub(super) async fn quota(&self, caller: &Caller) -> Result<Turn> {
        let room = caller.room(&self.cwd).await?;
        let left = format!("{} left for one more file", ByteSize(room.left));
        let Some(used) = &room.used else {
            return Ok(Turn::Say(Reply::many(
                200,
                format!("Space {}", Self::shown(caller, &room.space)),
                vec![left],
                "End",
            )));
        };
        let bytes = match room.max_bytes {
            Some(most) => format!("{} of {} used", ByteSize(used.bytes), ByteSize(most)),
            None => format!("{} used, no limit", ByteSize(used.bytes)),
        };
        let files = match room.max_files {
            Some(most) => format!("{} of {most} files", used.files),
            None => format!("{} files, no limit", used.files),
        };
        let lines = vec![bytes, files, left];
        Ok(Turn::Say(Reply::many(200, format!("Space {}", Self::shown(caller, &room.space)), lines, "End")))
    }

    pub(super) async fn copy_from(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let path = self.resolve(caller, name).await?;
        if caller.stat(&path).await?.node.kind != NodeKind::File {
            return Err(Error::new(Kind::WrongType, "only a file can be copied"));
        }
        self.copying = Some(path);
        Ok(say(350, "and now SITE CPTO"))
    }

    pub(super) async fn copy(&self, caller: &Caller, from: TreePath, name: &str) -> Result<Turn> {
        let (caller, to) = (caller.clone(), self.resolve(caller, name).await?);
        let source = from.clone();
        let work = async move {
            let receipt = caller.copy(&source, &to, true, None).await?;
            Ok(Reply::new(
                250,
                match receipt.path == to {
                    true => format!("copied, {} bytes", receipt.bytes),
                    false => format!("copied to {}, {} bytes", receipt.path.name(), receipt.bytes),
                },
            ))
        };
        Ok(self.work("COPY", from, work))
    }
}
