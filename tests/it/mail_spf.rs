//! The test suite of RFC 7208, as the source package of pyspf has it, against a name server of the test's own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use serde_json::Value;
use stoa::proto::smtp::spf::{Sender, check};
use tokio::net::UdpSocket;

/// Cases judged otherwise, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[];

/// The suite as JSON: one object for each of its documents.
fn suite() -> Vec<Value> {
    let clients = format!("{}/target/clients", env!("CARGO_MANIFEST_DIR"));
    let script = "
import glob, json, sys, yaml
path, = glob.glob(sys.argv[1] + '/pyspf-*/test/rfc7208-tests.yml')
with open(path, encoding='utf-8') as file:
    print(json.dumps([part for part in yaml.safe_load_all(file) if part]))
";
    let mut python = Command::new(format!("{clients}/dkim/bin/python"));
    let output = python.args(["-c", script, &clients]).output().expect("python; scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Records of a zone by name and type; a name without any of a type may time out.
type Zone = HashMap<String, Vec<(String, Value)>>;

fn zone(data: &Value) -> Zone {
    let mut zone = Zone::new();
    for (name, records) in data.as_object().expect("a zone") {
        let mut list = Vec::new();
        for record in records.as_array().expect("records") {
            match record {
                Value::String(word) => list.push((word.clone(), Value::Null)),
                other => list.extend(other.as_object().expect("a record").clone()),
            }
        }
        // The suite writes type SPF, which RFC 7208 has no longer, for TXT.
        let has = |kind: &str| list.iter().any(|(own, _)| own == kind);
        if has("SPF") && !has("TXT") {
            let texts: Vec<_> = list
                .iter()
                .filter(|(kind, _)| kind == "SPF")
                .map(|(_, text)| ("TXT".to_owned(), text.clone()))
                .collect();
            list.extend(texts);
        }
        list.retain(|(kind, value)| !(kind == "TXT" && value == "NONE"));
        zone.insert(name.trim_end_matches('.').to_lowercase(), list);
    }
    zone
}

fn named(out: &mut Vec<u8>, name: &str) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
}

fn data(kind: &str, value: &Value) -> (u16, Vec<u8>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = Vec::new();
    let number = match kind {
        "A" => {
            out.extend(text(value).parse::<std::net::Ipv4Addr>().expect("an address").octets());
            1
        }
        "CNAME" => {
            named(&mut out, &text(value));
            5
        }
        "PTR" => {
            named(&mut out, &text(value));
            12
        }
        "MX" => {
            out.extend(u16::try_from(value[0].as_u64().expect("a number")).expect("a small one").to_be_bytes());
            named(&mut out, &text(&value[1]));
            15
        }
        "TXT" => {
            let parts = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for part in parts {
                let latin: Vec<u8> = text(&part).chars().map(|letter| u8::try_from(letter).unwrap_or(b'?')).collect();
                for piece in latin.chunks(255) {
                    out.push(u8::try_from(piece.len()).expect("at most 255"));
                    out.extend(piece);
                }
                if latin.is_empty() {
                    out.push(0);
                }
            }
            if out.is_empty() {
                out.push(0);
            }
            16
        }
        "AAAA" => {
            out.extend(text(value).parse::<std::net::Ipv6Addr>().expect("an address").octets());
            28
        }
        _ => return (0, out),
    };
    (number, out)
}

/// `None`: no answer at all.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    let (name, kind) = (labels.join("."), u16::from_be_bytes([question[at + 1], question[at + 2]]));
    let records = zone.get(&name);
    let list = records.map(Vec::as_slice).unwrap_or_default();
    let found: Vec<_> =
        list.iter().map(|(kind, value)| data(kind, value)).filter(|(own, _)| *own == kind || *own == 5).collect();
    if found.is_empty() && list.iter().any(|(kind, _)| kind == "TIMEOUT") {
        return None;
    }
    let mut out = question[..2].to_vec();
    let count = u8::try_from(found.len()).expect("a few");
    out.extend([0x85, if records.is_some() { 0x80 } else { 0x83 }, 0, 1, 0, count, 0, 0, 0, 0]);
    out.extend(&question[12..at + 5]);
    for (number, data) in found {
        out.extend([0xc0, 12]);
        out.extend(number.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).expect("a short record").to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

async fn serve(zone: Zone) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let zone = Arc::new(zone);
    let task = tokio::spawn(async move {
        let mut question = [0; 1500];
        while let Ok((count, peer)) = socket.recv_from(&mut question).await {
            if let Some(answer) = answer(&question[..count], &zone) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    (address, task)
}

fn resolver(address: SocketAddr) -> MessageAuthenticator {
    let mut server = NameServerConfig::udp(address.ip());
    server.connections.iter_mut().for_each(|way| way.port = address.port());
    let mut options = ResolverOpts::default();
    (options.timeout, options.attempts, options.edns0) = (Duration::from_millis(300), 1, false);
    MessageAuthenticator::new(ResolverConfig::from_parts(None, Vec::new(), vec![server]), options).expect("a resolver")
}

#[tokio::test]
async fn every_case_of_the_suite_has_its_result() {
    let suite = tokio::task::spawn_blocking(suite).await.expect("the suite");
    let (mut tried, mut wrong) = (0, Vec::new());
    for part in &suite {
        let (address, task) = serve(zone(&part["zonedata"])).await;
        let resolver = resolver(address);
        for (name, case) in part["tests"].as_object().expect("cases") {
            let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            let (helo, mailbox) = (text("helo"), text("mailfrom"));
            let address: IpAddr = text("host").parse().expect("an address");
            let result = check(&resolver, &Sender { address, helo: &helo, mailbox: &mailbox }).await;
            let result = format!("{result:?}").to_lowercase();
            let expected = match &case["result"] {
                Value::Array(several) => {
                    several.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
                }
                one => vec![one.as_str().unwrap_or_default().to_owned()],
            };
            tried += 1;
            if !expected.contains(&result) && !OTHERWISE.iter().any(|(other, _)| other == name) {
                wrong.push(format!("{name}: {result} instead of {}", expected.join(" or ")));
            }
        }
        task.abort();
    }
    assert!(tried >= 190, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}
