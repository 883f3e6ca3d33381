//! Upload forms as browsers and programs send them: no form is acknowledged with fewer files than it held, and one that fails stores none.

use std::fs;
use std::process::Command;

use crate::uploads::{Said, daemon, exchange, request};

/// Sends a form of these parts, each a head without its last empty line, and a body.
fn post(address: std::net::SocketAddr, folder: &str, parts: &[(&str, &str)]) -> Said {
    let mut body = String::new();
    for (head, content) in parts {
        body.extend(["--B\r\n", head, "\r\n\r\n", content, "\r\n"]);
    }
    body.push_str("--B--\r\n");
    let headers = [("Content-Type", "multipart/form-data; boundary=B"), ("Accept", "application/json")];
    exchange(address, &request("alice", "POST", folder, &headers, body.as_bytes()))
}

#[test]
fn each_file_of_a_form_is_stored_under_its_name() {
    let daemon = daemon("");
    let head = |rest: &str| format!("Content-Disposition: form-data; name=\"f\"; {rest}");
    for (number, (rest, name)) in [
        (r#"filename="a\"c.txt""#, "a\"c.txt"),
        (r#"filename="b%22d.txt""#, "b\"d.txt"),
        (r#"filename="C:\Users\me\e.txt""#, "e.txt"),
        ("filename=g.txt", "g.txt"),
        ("filename*=UTF-8''%C3%A4.txt", "\u{e4}.txt"),
        (r#"filename="x"; filename*=UTF-8''h%20i.txt"#, "h i.txt"),
        (r#"FileName="k; filename=l.txt""#, "k; filename=l.txt"),
    ]
    .into_iter()
    .enumerate()
    {
        let content = format!("content {number}");
        let said = post(
            daemon.http,
            "/in/",
            &[(&head(rest), &content), ("Content-Disposition: form-data; name=do", "upload")],
        );
        assert_eq!(said.status, 201, "{rest}: {said:?}");
        let files = said.json()["files"].as_array().unwrap().clone();
        assert_eq!(files.len(), 1, "{rest}");
        assert_eq!(files[0]["path"], format!("/in/{name}"), "{rest}");
        assert_eq!(fs::read_to_string(daemon.on_disk(&format!("/in/{name}"))).unwrap(), content);
    }
    // Nothing was chosen in one of the fields.
    let said = post(daemon.http, "/in/", &[(&head(r#"filename="""#), ""), (&head("filename=m.txt"), "m")]);
    assert_eq!((said.status, said.json()["files"].as_array().unwrap().len()), (201, 1));
    // Two files of one name are two files, also where files are replaced.
    let said = post(daemon.http, "/in/", &[(&head("filename=n.txt"), "one"), (&head("filename=n.txt"), "two")]);
    assert_eq!((said.status, said.json()["files"].as_array().unwrap().len()), (201, 2));
    assert_eq!(fs::read_to_string(daemon.on_disk("/in/n.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(daemon.on_disk("/in/n (2).txt")).unwrap(), "two");
}

#[test]
fn a_form_that_fails_stores_none_of_its_files() {
    let daemon = daemon("");
    let file = |name: &str| format!("Content-Disposition: form-data; name=f; filename=\"{name}\"");
    let (good, fails) = (file("good.txt"), |head: &str, content: &str, folder: &str| {
        let said = post(daemon.http, folder, &[(&file("good.txt"), "good"), (head, content)]);
        assert!((400..600).contains(&said.status), "{head}: {said:?}");
        assert!(!daemon.on_disk(&format!("{folder}good.txt")).exists(), "{head}");
        said.status
    });
    assert_eq!(fails(&file(""), "bytes without a name", "/in/"), 400);
    assert_eq!(fails(&file("folder/"), "x", "/in/"), 400);
    assert_eq!(fails(&file(".."), "x", "/in/"), 400);
    assert_eq!(fails("Content-Type: text/plain", "x", "/in/"), 400);
    assert_eq!(fails(&format!("{}\r\nContent-Transfer-Encoding: base64", file("b")), "eA==", "/in/"), 400);
    assert_eq!(
        fails("Content-Disposition: form-data; name=f\r\nContent-Type: multipart/mixed; boundary=C", "x", "/in/"),
        400
    );
    // Together they are more than the quota of 100 bytes.
    assert_eq!(fails(&file("more.txt"), &"x".repeat(97), "/small/"), 507);
    assert_eq!(post(daemon.http, "/small/", &[(&good, "good"), (&file("more.txt"), "enough")]).status, 201);
    let lines = daemon.must(&["history"], "");
    assert_eq!(lines.matches("good.txt").count(), 1, "{lines}");
}

#[test]
fn curl_escapes_names_in_two_ways() {
    let daemon = daemon("");
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("file");
    fs::write(&file, "by curl").unwrap();
    for (name, escape) in [("quo\"ted.txt", Some("--form-escape")), ("per\"cent.txt", None)] {
        let form = format!("f=@{};filename=\"{}\"", file.display(), name.replace('"', "\\\""));
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "20", "-u", "alice:secret-alice", "-F", &form]);
        let output = command.args(escape).arg(format!("http://{}/in/", daemon.http)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(daemon.on_disk(&format!("/in/{name}"))).unwrap(), "by curl");
    }
}
