//! `/-/connect`: how to open this server's files in each program, with its own address filled in.

use hyper::Response;
use maud::{Markup, html};

use crate::proto::http::body::Outgoing;
use crate::proto::http::visit::{Visit, who};
use crate::proto::http::{page, reply};

/// The addresses of this server, as the browser that asks reached it.
struct Place {
    host: String,
    secure: bool,
    /// The folder the caller starts in, as a URL's path.
    folder: String,
    /// Who is signed in.
    name: String,
    /// WebDAV's methods ask guests to sign in.
    asks: bool,
}

impl Place {
    fn of(visit: &Visit<'_>) -> Self {
        let host = Some(visit.host);
        let safe = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        Self {
            host: host.filter(safe).unwrap_or("this-server").to_owned(),
            secure: visit.caller.origin().secure,
            folder: visit.rules.base.url(&visit.caller.start(), true),
            name: who(&visit.caller).unwrap_or("NAME").to_owned(),
            asks: visit.rules.settings.webdav_sign_in,
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.secure { "https" } else { "http" }, self.host, self.folder)
    }

    /// As Linux file managers write it.
    fn dav_url(&self, scheme: &str) -> String {
        format!("{scheme}{}://{}{}", if self.secure { "s" } else { "" }, self.host, self.folder)
    }

    /// As Windows writes it.
    fn unc(&self) -> String {
        let (name, port) = self.host.rsplit_once(':').map_or((self.host.as_str(), ""), |(name, port)| (name, port));
        let tls = if self.secure { "@SSL" } else { "" };
        let port = if port.is_empty() { String::new() } else { format!("@{port}") };
        format!("\\\\{name}{tls}{port}\\DavWWWRoot{}", self.folder.trim_end_matches('/').replace('/', "\\"))
    }
}

/// Answers `GET` and `HEAD`.
pub fn send(visit: &Visit<'_>) -> Response<Outgoing> {
    let place = Place::of(visit);
    reply::html(page::framed(&visit.rules.base, "Connect", who(&visit.caller), &main(&place)))
}

fn main(place: &Place) -> Markup {
    let url = place.url();
    html! {
        main.guide {
            h1 { "Connect" }
            p.lead { "Open these files as a drive, in the programs you already have. All of them ask for the same address, and for your name and password." }
            p.address { code { (url) } }
            @if !place.secure {
                p.error { "This address is without TLS. From another machine, passwords are taken over " code { "https" } " only: ask your administrator for that address." }
            }
            (desktops(place))
            (commands(place))
            (phones(place))
            section.card {
                h2 { "Good to know" }
                ul {
                    li { "While one program holds a file open it may lock it. Others can read it and are told who has it, whether they come by WebDAV, FTP or the browser." }
                    li { "The same files are here in the browser, at " a href=(place.folder) { (place.folder) } "." }
                }
            }
        }
    }
}

fn desktops(place: &Place) -> Markup {
    let url = place.url();
    html! {
        section.card {
            h2 { "Windows" }
            ol {
                li { "In Explorer, open " b { "This PC" } ", then " b { "Map network drive" } "." }
                li { "Enter " code { (url) } " as the folder, and tick " b { "Connect using different credentials" } "." }
                li { "Sign in. Or, in a terminal: " code { "net use * " (place.unc()) " /user:" (place.name) } }
            }
            p.hint { "Windows moves no file above 50 MB until " code { "FileSizeLimitInBytes" } " under "
                code { "HKLM\\SYSTEM\\CurrentControlSet\\Services\\WebClient\\Parameters" } " is raised (at most 4 GB). The WebClient service must run." }
        }
        section.card {
            h2 { "macOS" }
            ol {
                li { "In Finder, choose " b { "Go" } ", then " b { "Connect to Server…" } " (⌘K)." }
                li { "Enter " code { (url) } " and sign in as a registered user." }
            }
        }
        section.card {
            h2 { "GNOME and KDE" }
            p { "In Files, choose " b { "Other Locations" } " and enter " code { (place.dav_url("dav")) } }
            p { "In Dolphin, enter " code { (place.dav_url("webdav")) } " in the location bar." }
            @if !place.asks {
                p.hint { "These programs sign in only when they are asked to. In folders that everyone may read they stay guests, who cannot rename or save: open a folder of your own, or have your administrator set "
                    code { "webdav_sign_in = true" } " under " code { "[http]" } "." }
            }
        }
    }
}

fn commands(place: &Place) -> Markup {
    let (url, name) = (place.url(), &place.name);
    html! {
        section.card {
            h2 { "Linux, as a folder" }
            pre { code { "mount -t davfs " (url) " /mnt -o username=" (name) } }
            p.hint { "With the package " code { "davfs2" } ", as root." }
        }
        section.card {
            h2 { "rclone" }
            pre { code { "rclone config create stoa webdav url=" (url) " vendor=other \\\n    user=" (name) " pass=\"$(rclone obscure PASSWORD)\"\nrclone sync ~/Documents stoa:Documents" } }
        }
        section.card {
            h2 { "cadaver and curl" }
            pre { code { "cadaver " (url) "\ncurl -u " (name) " -T report.pdf " (url) } }
        }
    }
}

fn phones(place: &Place) -> Markup {
    html! {
        section.card {
            h2 { "iPhone and iPad" }
            p { "The Files app speaks no WebDAV itself. Apps that do, such as Documents or PhotoSync, ask for the address " code { (place.url()) } ", the name and the password." }
        }
        section.card {
            h2 { "Android" }
            p { "In Material Files, Solid Explorer, FolderSync or RCX, add a WebDAV server with " code { (place.url()) } "." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_gets_the_address_in_its_own_spelling() {
        let place = |host: &str, secure| Place {
            host: host.into(),
            secure,
            folder: "/home/ann/".into(),
            name: "ann".into(),
            asks: false,
        };
        let here = place("files.example.org", true);
        assert_eq!(here.url(), "https://files.example.org/home/ann/");
        assert_eq!(here.dav_url("dav"), "davs://files.example.org/home/ann/");
        assert_eq!(here.unc(), "\\\\files.example.org@SSL\\DavWWWRoot\\home\\ann");
        assert_eq!(place("localhost:8080", false).unc(), "\\\\localhost@8080\\DavWWWRoot\\home\\ann");
        assert!(main(&place("localhost:8080", false)).into_string().contains("without TLS"));
    }
}
