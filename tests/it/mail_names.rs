//! Names of attachments in every way in which mail programs write them, right and wrong; where Python's `email` and Perl's MIME-tools read the
//! same out of one, so do we.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;
use stoa::hub::mail::dissect;

/// Names, with charsets that can write them.
const NAMES: &[(&str, &[&str])] = &[
    ("März 2026.pdf", &["utf-8", "iso-8859-1", "windows-1252", "iso-8859-15", "iso-8859-9", "cp850", "cp437", "cp858"]),
    ("Übersicht ÄÖÜ ß.pdf", &["utf-8", "iso-8859-1", "iso-8859-2", "windows-1250", "windows-1252", "cp850"]),
    ("nuotrauką.pdf", &["utf-8", "iso-8859-13", "windows-1257", "iso-8859-4", "cp775"]),
    ("Zażółć gęślą jaźń.pdf", &["utf-8", "iso-8859-2", "windows-1250", "cp852"]),
    ("Отчёт за май.pdf", &["utf-8", "windows-1251", "koi8-r", "iso-8859-5", "cp866", "cp855"]),
    ("Ετήσια έκθεση.pdf", &["utf-8", "iso-8859-7", "windows-1253", "cp737"]),
    ("şirket ığ.pdf", &["utf-8", "iso-8859-9", "windows-1254", "cp857"]),
    ("請求書 十月分.pdf", &["utf-8", "shift_jis", "euc-jp", "iso-2022-jp"]),
    ("发票清单 第三页.pdf", &["utf-8", "gbk", "gb18030", "gb2312"]),
    ("發票清單.pdf", &["utf-8", "big5"]),
    ("청구서 시월.pdf", &["utf-8", "euc-kr"]),
    ("plain name.pdf", &["us-ascii", "utf-8", "iso-8859-1"]),
];

fn encoded(label: &str, text: &str) -> Vec<u8> {
    let page = label.strip_prefix("cp").and_then(|number| number.parse::<u16>().ok());
    if let Some(table) = page.and_then(|page| oem_cp::code_table::ENCODING_TABLE_CP_MAP.get(&page)) {
        return oem_cp::encode_string_checked(text, table).unwrap_or_else(|| panic!("{label} cannot write {text}"));
    }
    let (bytes, _, lossy) = Encoding::for_label(label.as_bytes()).expect(label).encode(text);
    assert!(!lossy, "{label} cannot write {text}");
    bytes.into_owned()
}

fn quoted(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b' ' => text.push('_'),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => write!(text, "={byte:02X}").expect("a string"),
        }
        text
    })
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            byte if byte.is_ascii_alphanumeric() || *byte == b'.' => text.push(char::from(*byte)),
            byte => write!(text, "%{byte:02X}").expect("a string"),
        }
        text
    })
}

/// All ways to write a name, as parameters of `Content-Disposition`.
fn ways(name: &str, label: &str) -> Vec<(&'static str, String)> {
    let bytes = encoded(label, name);
    let stateful = label.starts_with("iso-2022");
    let word = |kind: char, bytes: &[u8]| match kind {
        'Q' => format!("=?{label}?Q?{}?=", quoted(bytes)),
        _ => format!("=?{label}?B?{}?=", STANDARD.encode(bytes)),
    };
    let (stem, ending) = name.rsplit_once('.').expect("an extension");
    let stem = encoded(label, stem);
    let mut ways = vec![
        ("Q", format!("filename=\"{}\"", word('Q', &bytes))),
        ("B", format!("filename=\"{}\"", word('B', &bytes))),
        ("Q, small letters", format!("filename=\"{}\"", word('Q', &bytes).replacen("?Q?", "?q?", 1))),
        ("B, without quotes", format!("filename={}", word('B', &bytes))),
        ("Q, touching its extension", format!("filename=\"{}.{ending}\"", word('Q', &stem))),
        ("B, touching its extension, without quotes", format!("filename={}.{ending}", word('B', &stem))),
        ("Q with a language", format!("filename=\"{}\"", word('Q', &bytes).replacen("?Q?", "*de?Q?", 1))),
        ("2231", format!("filename*={label}''{}", percent(&bytes))),
        ("2231 with a language", format!("filename*={label}'de-AT'{}", percent(&bytes))),
        ("2231 in quotes", format!("filename*=\"{label}''{}\"", percent(&bytes))),
        ("2231 beside a plain one", format!("filename=fallback.pdf; filename*={label}''{}", percent(&bytes))),
        ("a word in 2231", format!("filename*=\"{}\"", word('Q', &bytes))),
        ("beside an empty one", format!("filename=\"\"; filename*={label}''{}", percent(&bytes))),
        ("a word as percents", format!("filename*=utf-8''{}", percent(word('B', &bytes).as_bytes()))),
    ];
    if stateful {
        return ways;
    }
    // Cut where it hurts: inside of characters.
    for at in [1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 5] {
        let (one, two) = bytes.split_at(at);
        ways.push(("two words, Q", format!("filename=\"{}\r\n {}\"", word('Q', one), word('Q', two))));
        ways.push(("two words, B and Q", format!("filename=\"{} {}\"", word('B', one), word('Q', two))));
        let pieces = format!("filename*0*={label}''{};\r\n filename*1*={}", percent(one), percent(two));
        ways.push(("2231 in pieces", pieces));
        let turned = format!("filename*1*={};\r\n filename*0*={label}''{}", percent(two), percent(one));
        ways.push(("2231 in pieces, turned round", turned));
    }
    let long = word('B', &bytes);
    let (one, two) = long.split_at(long.len() / 2);
    ways.push(("a word in pieces", format!("filename*0=\"{one}\";\r\n filename*1=\"{two}\"")));
    if label == "utf-8" {
        ways.push(("as it is", format!("filename=\"{name}\"")));
        ways.push(("as it is, without quotes", format!("filename={name}")));
    }
    ways
}

fn message(parameter: &str) -> String {
    format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; {parameter}\r\n\r\nx\r\n"
    )
}

const PYTHON: &str = "
import email, email.policy, json, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    with open(os.path.join(sys.argv[1], name), 'rb') as file:
        try:
            said = email.message_from_binary_file(file, policy=email.policy.default).get_filename()
        except Exception:
            said = None
    print(json.dumps([name, said]))
";

const PERL: &str = r#"
use strict; use warnings; use MIME::Parser; use Encode;
my $parser = MIME::Parser->new; $parser->output_to_core(1); $parser->tmp_to_core(1);
opendir(my $folder, $ARGV[0]) or die;
for my $name (sort grep { /eml$/ } readdir $folder) {
    my $said = eval { local $SIG{__WARN__} = sub {}; $parser->parse_open("$ARGV[0]/$name")->head->recommended_filename };
    $said = '' unless defined $said;
    $said = encode('UTF-8', $said) if utf8::is_utf8($said);
    $said =~ s/([^A-Za-z0-9.])/sprintf('%%%02X', ord $1)/ge;
    print "$name $said\n";
}
"#;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/test installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What others read, by file.
fn others(folder: &Path) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let python = run(Command::new("python3").args(["-c", PYTHON]).arg(folder));
    let python = python.lines().map(|line| serde_json::from_str::<(String, Option<String>)>(line).expect("JSON"));
    let perl = run(Command::new("perl").args(["-e", PERL]).arg(folder));
    let perl = perl.lines().map(|line| {
        let (name, said) = line.split_once(' ').expect("two words");
        (name.to_owned(), percent_encoding::percent_decode_str(said).decode_utf8_lossy().into_owned())
    });
    (python.map(|(name, said)| (name, said.unwrap_or_default())).collect(), perl.collect())
}

#[test]
fn every_way_to_write_a_name_gives_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut trials, mut wrong) = (Vec::new(), Vec::new());
    for (name, labels) in NAMES {
        for label in *labels {
            for (way, parameter) in ways(name, label) {
                let file = format!("{:04}.eml", trials.len());
                fs::write(folder.path().join(&file), message(&parameter)).expect("room");
                let ours = dissect(message(&parameter).as_bytes(), 11, 200).remove(0).0;
                if ours != *name {
                    wrong.push(format!("{way}, {label}: {ours} instead of {name}: {parameter}"));
                }
                // Without quotes a name ends at its first blank for some; people mean all of it.
                let compared = way != "as it is, without quotes";
                trials.push((file, ours, parameter, compared));
            }
        }
    }
    assert!(trials.len() >= 400, "{}", trials.len());
    let (python, perl) = others(folder.path());
    let mut agreed = 0;
    for (file, ours, parameter, _) in trials.iter().filter(|(.., compared)| *compared) {
        let (one, two) = (&python[file], &perl[file]);
        if one == two && !one.is_empty() {
            agreed += 1;
            // What both leave undecoded, or read as nonsense, says nothing.
            if one != ours && !one.contains("=?") && !one.contains('\u{fffd}') {
                wrong.push(format!("others read {one}, we read {ours}: {parameter}"));
            }
        }
    }
    assert!(agreed >= 50, "the others agree about {agreed} of {} only", trials.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), trials.len(), wrong.join("\n"));
}
