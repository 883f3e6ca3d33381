//! Messages damaged in every line that says how they are built: each of their files comes out, or the whole message does.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoa::hub::mail::dissect;

const ONE: &[u8] = b"the first file, of some length, so that it is more than one line of base64 when it is encoded";
const TWO: &[u8] = b"1;2;3\r\n4;5;6";
const THREE: &[u8] = b"the third file, inside another multipart";

fn base64_lines(bytes: &[u8]) -> Vec<String> {
    let text = STANDARD.encode(bytes);
    text.as_bytes().chunks(60).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// Two files and a multipart with a third, as lines.
fn lines() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut add = |text: &str| lines.extend(text.split('\n').map(str::to_owned));
    add(
        "From: scanner@else.where\nSubject: three files\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"outer-1\"\n\n--outer-1",
    );
    add("Content-Type: text/plain\n\nsee the files\n--outer-1");
    add(
        "Content-Type: application/pdf; name=\"one.pdf\"\nContent-Disposition: attachment;\n filename=\"one.pdf\"\nContent-Transfer-Encoding: base64\n",
    );
    add(&base64_lines(ONE).join("\n"));
    add(
        "--outer-1\nContent-Type: text/csv; name=two.csv\nContent-Disposition: attachment; filename=two.csv\n\n1;2;3\n4;5;6\n--outer-1",
    );
    add(
        "Content-Type: multipart/related; boundary=inner-2\n\n--inner-2\nContent-Type: image/png; name=three.png\nContent-Transfer-Encoding: base64\n",
    );
    add(&base64_lines(THREE).join("\n"));
    add("--inner-2--\n--outer-1--");
    lines
}

/// A way to damage a message: its name, and every form it takes.
type Damage = (&'static str, fn(&str) -> Vec<String>);

/// What can happen to a line.
const DAMAGES: &[Damage] = &[
    ("is gone", |_| Vec::new()),
    ("is there twice", |line| vec![line.into(), line.into()]),
    ("is folded", |line| vec![format!(" {line}")]),
    ("has blanks behind it", |line| vec![format!("{line}  \t")]),
    ("is in upper case", |line| vec![line.to_uppercase()]),
    ("has a blank before its colon", |line| vec![line.replacen(':', " :", 1)]),
    ("has no colon", |line| vec![line.replacen(':', "", 1)]),
    ("has nonsense before it", |line| vec!["this is no header line".into(), line.into()]),
    ("has nonsense behind it", |line| vec![line.into(), "nor is this".into()]),
    ("has an empty line before it", |line| vec![String::new(), line.into()]),
    ("has a folded line before it", |line| vec!["  charset=utf-8".into(), line.into()]),
    ("is cut", |line| vec![line.chars().take(line.len() / 2).collect()]),
    ("is quoted", |line| vec![format!("> {line}")]),
    ("has words behind it", |line| vec![format!("{line} and more")]),
    ("has its quotes changed", |line| vec![line.replace('"', "'")]),
    ("closes", |line| vec![format!("{line}--")]),
];

/// Says why, where a part is lost.
fn lost(message: &[u8]) -> Option<String> {
    for cut in [usize::MAX, 7] {
        let files = dissect(message, cut, 200);
        if files.iter().any(|(_, bytes)| bytes == message) {
            continue;
        }
        for (name, bytes) in [("one", ONE), ("two", TWO), ("three", THREE)] {
            // Where nothing says that it is encoded, the file holds what was sent.
            let plain =
                |text: &[u8]| text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect::<Vec<u8>>();
            let wanted = [plain(bytes), STANDARD.encode(bytes).into_bytes()];
            let is_it = |found: &[u8]| {
                let found = plain(found);
                wanted
                    .iter()
                    .any(|wanted| found.len() < wanted.len() + 60 && memchr::memmem::find(&found, wanted).is_some())
            };
            if !files.iter().any(|(_, found)| is_it(found)) {
                let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
                return Some(format!("{name} is not among {names:?}"));
            }
        }
    }
    None
}

#[test]
fn no_part_is_lost_unless_the_whole_message_is_filed() {
    let whole = lines();
    let joined =
        |lines: &[String]| lines.iter().map(|line| format!("{line}\r\n")).collect::<Vec<_>>().concat().into_bytes();
    let names: Vec<String> = dissect(&joined(&whole), 1000, 200).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["one.pdf", "two.csv", "three.png"], "undamaged");
    let (mut tried, mut wrong) = (BTreeSet::new(), Vec::new());
    let mut judge = |story: String, message: Vec<u8>| {
        if let Some(why) = lost(&message) {
            wrong.push(format!("{story}: {why}"));
        }
        tried.insert(message);
    };
    // What stands in a file is not what says how the message is built.
    let files: BTreeSet<String> =
        [base64_lines(ONE), base64_lines(THREE), vec!["1;2;3".into(), "4;5;6".into()]].concat().into_iter().collect();
    for (number, line) in whole.iter().enumerate().filter(|(_, line)| !files.contains(*line)) {
        for (how, damage) in DAMAGES {
            let mut lines = whole.clone();
            lines.splice(number..=number, damage(line));
            judge(format!("line {number} `{line}` {how}"), joined(&lines));
        }
        let glued = [&joined(&whole[..number])[..], line.as_bytes(), &joined(&whole[number + 1..])].concat();
        judge(format!("line {number} `{line}` has no end"), glued);
        let mut lines = whole.clone();
        lines.swap(number, (number + 1).min(whole.len() - 1));
        judge(format!("line {number} `{line}` is behind the next"), joined(&lines));
    }
    let unix = whole.join("\n").into_bytes();
    judge("line ends of Unix".into(), unix);
    assert!(tried.len() >= 150, "{}", tried.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), tried.len(), wrong.join("\n"));
}

#[test]
fn a_picture_in_a_text_is_no_attachment() {
    let message = |html: &str, shown: &str| {
        format!(
            "Subject: offer\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n{html}\r\n--b\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <logo@here>\r\nContent-Disposition: {shown}\r\n\r\nPNG\r\n--b--\r\n"
        )
    };
    let names = |text: String| dissect(text.as_bytes(), 9, 200).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let shows = "<p>Hello</p><img src=\"cid:logo@here\">";
    assert_eq!(names(message(shows, "inline")), ["2026-01-01 offer.eml"]);
    assert_eq!(names(message("<p>Hello</p>", "inline")), ["logo.png"]);
    assert_eq!(names(message(shows, "attachment")), ["logo.png"]);
    let with_file = message(shows, "inline")
        .replace("\r\n--b--", "\r\n--b\r\nContent-Type: application/pdf; name=offer.pdf\r\n\r\nPDF\r\n--b--");
    assert_eq!(names(with_file), ["offer.pdf", "2026-01-01 offer.eml"]);
}

#[test]
fn a_text_that_says_something_is_filed_with_its_attachment() {
    let message = |text: &str| {
        format!(
            "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{text}\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\nPDF\r\n--b--\r\n"
        )
    };
    let count = |text: &str| dissect(message(text).as_bytes(), 9, 200).len();
    assert_eq!(count("see attached"), 1);
    assert_eq!(count("-- \r\nBob, Head of Everything, A Long Street 12, 12345 Some Town, Some Country, phone 1234"), 1);
    assert_eq!(count("Please pay the second one first, the other has time until the end of May."), 2);
}
