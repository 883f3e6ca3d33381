//! Messages signed by dkimpy in every canonicalisation, with RSA and Ed25519: we verify each of them, and none that was changed.

use std::fs;
use std::process::Command;

use crate::proof::{Names, section, send};
use crate::world::World;

const SIGN: &str = r#"
import base64, dkim, json, nacl.signing, subprocess, sys
rsa = subprocess.run(["openssl", "genrsa", "-traditional", "2048"], check=True, capture_output=True).stdout
public = subprocess.run(["openssl", "rsa", "-pubout", "-outform", "DER"], input=rsa, check=True, capture_output=True).stdout
seed = nacl.signing.SigningKey.generate()
ed = base64.b64encode(bytes(seed)), base64.b64encode(bytes(seed.verify_key)).decode()
bodies = ["", "\r\n", "\r\n\r\n\r\n", "x", "x\r\n", "x\r\n\r\n\r\n", " \r\n", " leading\r\n", "trailing \t \r\n", "a  b\t\tc\r\n", "\tx\r\n \r\n",
    "x\r\n \r\n\r\n", ".\r\n", "..\r\n.x\r\n", "From here\r\n", "Grüße, 請求書\r\n", "long " * 180 + "\r\n", "line\r\n" * 500, "--\r\n-- \r\nsig\r\n"]
heads = ["From: ann@signed.example\r\nTo: bob@example.org\r\nSubject: plain\r\n",
    "From:  Ann  <ann@signed.example>  \r\nSubject:\tfolded\r\n and  folded \r\n\tagain\r\nTO:bob@example.org\r\nX-Two: 1\r\nX-Two: 2\r\n"]
out = []
for name, (selector, key, algorithm) in {"rsa": (b"rsa", rsa, b"rsa-sha256"), "ed": (b"ed", ed[0], b"ed25519-sha256")}.items():
    for head in (b"simple", b"relaxed"):
        for body in (b"simple", b"relaxed"):
            for fields in heads:
                for text in bodies:
                    message = (fields + "\r\n" + text).encode()
                    line = dkim.sign(message, selector, b"signed.example", key, canonicalize=(head, body), signature_algorithm=algorithm)
                    out.append([name + " " + head.decode() + "/" + body.decode(), (line + message).decode()])
print(json.dumps({"rsa": base64.b64encode(public).decode(), "ed": ed[1], "messages": out}))
"#;

#[derive(serde::Deserialize)]
struct Signed {
    rsa: String,
    ed: String,
    messages: Vec<(String, String)>,
}

fn signed() -> Signed {
    let python = format!("{}/target/clients/dkim/bin/python", env!("CARGO_MANIFEST_DIR"));
    let python = if fs::exists(&python).is_ok_and(|there| there) { python } else { "python3".to_owned() };
    let output = Command::new(python).args(["-c", SIGN]).output().expect("python; scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn what_dkimpy_signs_is_verified() {
    let signed = tokio::task::spawn_blocking(signed).await.expect("signed messages");
    let names = Names::serve(&[
        ("rsa._domainkey.signed.example", format!("v=DKIM1; k=rsa; p={}", signed.rsa)),
        ("ed._domainkey.signed.example", format!("v=DKIM1; k=ed25519; p={}", signed.ed)),
    ])
    .await;
    let (world, note) = (World::light().await, section("note", &names));
    assert!(signed.messages.len() >= 300, "{}", signed.messages.len());
    let mut wrong = Vec::new();
    for (number, (how, message)) in signed.messages.iter().enumerate() {
        let stuffed = message.replace("\r\n.", "\r\n..");
        let (reply, stored) = send(&world, &note, "ann@signed.example", &stuffed).await;
        if !reply.starts_with("250") || !stored.contains("dkim=pass header.i=@signed.example") {
            let judged = stored.split("\r\n\r\n").next().unwrap_or_default().lines().take(6).collect::<Vec<_>>();
            wrong.push(format!("{number}: {how}: {reply}: {judged:?}"));
        }
        if number % 10 == 3 {
            let changed = stuffed.replacen("Subject:", "Subject: no", 1);
            let (_, stored) = send(&world, &note, "ann@signed.example", &changed).await;
            if stored.contains("dkim=pass") {
                wrong.push(format!("{number}: {how}: a changed subject passes"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        signed.messages.len(),
        wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n")
    );
}
