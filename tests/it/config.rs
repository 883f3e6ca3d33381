//! Configuration: layers, origins, and words for what is wrong.

use std::fs;
use std::path::PathBuf;

use stoa::config::{self, Config, Loaded, Problems, explain};
use tempfile::TempDir;

/// A folder with a main file and pieces in `conf.d`.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(main: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(folder.path().join("stoa.toml"), main).unwrap();
        Self { folder }
    }

    fn main(&self) -> PathBuf {
        self.folder.path().join("stoa.toml")
    }

    fn piece(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join("conf.d").join(name), text).unwrap();
        self
    }

    fn load(&self, env: &[(&str, &str)]) -> Result<Loaded, Problems> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config::load_with(Some(&self.main()), env)
    }

    fn wrong(&self, env: &[(&str, &str)]) -> String {
        self.load(env).expect_err("was accepted").to_string()
    }
}

fn right(loaded: Result<Loaded, Problems>) -> Loaded {
    loaded.unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(right(Files::new("").load(&[])).config, Config::default());
}

#[test]
fn the_later_layer_counts_and_is_named() {
    let files = Files::new("workers = 1\n\n[limits]\nidle = \"1m\"\nconnections = 5\n")
        .piece("20.toml", "[limits]\nidle = \"3m\"\n")
        .piece("10.toml", "[limits]\nidle = \"2m\"\n");
    let loaded = right(files.load(&[("STOA__LIMITS__CONNECTIONS", "7"), ("STOA_OTHER", "x")]));
    assert_eq!(loaded.config.limits.idle.to_string(), "3m");
    assert_eq!(loaded.config.limits.connections, 7);
    assert_eq!(loaded.origins.of("limits.connections").to_string(), "env STOA__LIMITS__CONNECTIONS");
    assert!(loaded.origins.of("limits.idle").to_string().ends_with("conf.d/20.toml:2"));
    assert!(loaded.origins.of("workers").to_string().ends_with("stoa.toml:1"));
    assert_eq!(loaded.origins.of("log.level").to_string(), "default");
}

#[test]
fn an_empty_list_takes_back_what_an_earlier_layer_listed() {
    let files = Files::new("[login]\nnever_ban = [\"10.0.0.0/8\"]\n").piece("a.toml", "[login]\nnever_ban = []\n");
    assert_eq!(right(files.load(&[])).config.login.never_ban, Vec::<String>::new());
}

#[test]
fn pieces_add_to_lists_of_tables() {
    let files = Files::new("[[user]]\nname = \"alice\"\n").piece("bob.toml", "[[user]]\nname = \"bob\"\n");
    let loaded = right(files.load(&[]));
    let names: Vec<_> = loaded.config.user.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert!(loaded.origins.of("user[1].name").to_string().ends_with("bob.toml:2"));
    assert_eq!(loaded.config.listen, Config::default().listen, "nobody declared a listener");
}

#[test]
fn declared_listeners_replace_the_default_ones() {
    let loaded = right(Files::new("[[listen]]\nprotocol = \"ftp\"\naddress = \"127.0.0.1:0\"\n").load(&[]));
    assert_eq!(loaded.config.listen.len(), 1);
}

#[test]
fn domains_are_a_word_a_list_or_words_with_commas() {
    for text in ["domain = \"a.org, b.org\"", "domain = [\"a.org\", \"b.org\"]"] {
        assert_eq!(right(Files::new(text).load(&[])).config.domain, ["a.org", "b.org"]);
    }
    let loaded = right(Files::new("").load(&[("STOA__DOMAIN", "a.org,b.org")]));
    assert_eq!(loaded.config.domain, ["a.org", "b.org"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_word_that_was_meant() {
    let wrong = Files::new("[limits]\nidle = \"1m\"\nconections = 5\n[limts]\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:3:1: unknown key `conections` in [limits]"), "{wrong}");
    assert!(wrong.contains("3 | conections = 5\n    | ^^^^^^^^^^\n"), "{wrong}");
    assert!(wrong.contains("did you mean `connections`?"), "{wrong}");
    assert!(wrong.contains("did you mean `limits`?"), "both are reported: {wrong}");
}

#[test]
fn an_unknown_key_in_a_list_is_named() {
    let wrong = Files::new("[[user]]\nnmae = \"x\"\n[[space]]\npath = \"/a\"\ngrants = [{ too = \"x\" }]\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:2:1: unknown key `nmae` in [user[0]]"), "{wrong}");
    let wrong = Files::new("[[space]]\npath = \"/a\"\ngrants = [{ too = \"x\" }]\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:3:"), "{wrong}");
    assert!(wrong.contains("did you mean `to`?"), "{wrong}");
}

#[test]
fn a_wrong_type_is_named_with_its_place() {
    let wrong = Files::new("[limits]\nidle = \"soon\"\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:2:8: `soon` is not a span of time"), "{wrong}");
    let wrong = Files::new("workers = \"4\"\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:1:11: invalid type: string"), "{wrong}");
    let wrong = Files::new("[log]\nrotate = \"dayly\"\n").wrong(&[]);
    assert!(wrong.contains("did you mean `daily`?"), "{wrong}");
    let wrong = Files::new("a = = 1\n").wrong(&[]);
    assert!(wrong.contains("stoa.toml:1:"), "{wrong}");
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = Files::new("").wrong(&[
        ("STOA__LIMITS__CONECTIONS", "5"),
        ("STOA__LIMITS__ERRORS", "many"),
        ("STOA__LIMITS", "5"),
        ("STOA__USER__0__NAME", "x"),
    ]);
    assert!(
        wrong.contains("env STOA__LIMITS__CONECTIONS: unknown key `conections`; did you mean `connections`?"),
        "{wrong}"
    );
    assert!(wrong.contains("env STOA__LIMITS__ERRORS: `many` is not a whole number"), "{wrong}");
    assert!(wrong.contains("env STOA__LIMITS: names a whole table"), "{wrong}");
    assert!(wrong.contains("env STOA__USER__0__NAME: a list of tables cannot be set"), "{wrong}");
    let wrong = Files::new("").wrong(&[("STOA__LIMITS__IDLE", "soon")]);
    assert!(wrong.contains("env STOA__LIMITS__IDLE: limits.idle: `soon` is not a span"), "{wrong}");
}

#[test]
fn every_problem_of_meaning_is_said_at_once() {
    let wrong = Files::new(
        r#"domain = "-x"
[tls]
key = "/k.pem"
[limits]
connections = 0
proxy_from = ["here"]
[[listen]]
protocol = "fpt"
address = "21"
[[user]]
name = "Alice"
root = "up"
[[user]]
name = "bob"
[[device]]
name = "bob"
[[space]]
path = "/-/x"
address = "a+b"
grants = [{ to = "alice", allow = "look" }]
"#,
    )
    .wrong(&[]);
    for expected in [
        "stoa.toml:1: domain: `-x` is not a domain name",
        "stoa.toml:3: tls.key: given without tls.certificate",
        "stoa.toml:5: limits.connections: 0 would refuse everything",
        "stoa.toml:6: limits.proxy_from: `here` is not a network",
        "listen[0].protocol: unknown protocol `fpt`; did you mean `ftp`?",
        "listen[0].address: `21` is not an address with a port",
        "user[0].name: `Alice` is not a name",
        "user[0].root: `up`",
        "device[0].name: `bob` is taken by user[1] already",
        "space[0].path: `/-/x` is reserved",
        "space[0].address: `a+b` is not a local part",
        "space[0].grants: `alice` names nobody",
        "`look` is not a verb",
    ] {
        assert!(wrong.contains(expected), "no `{expected}` in:\n{wrong}");
    }
}

#[test]
fn addresses_are_what_a_listener_can_bind() {
    let load =
        |address: &str| Files::new(&format!("[[listen]]\nprotocol = \"ftp\"\naddress = \"{address}\"\n")).load(&[]);
    for address in ["0.0.0.0:21", "[::]:21", "*:21", ":21", "localhost:0"] {
        right(load(address));
    }
    for address in ["21", "::1:21", "localhost", "127.0.0.1:65536"] {
        assert!(load(address).is_err(), "{address}");
    }
}

/// Two doors of one language, the second with its own rules.
const TWO_DOORS: &str = r#"[ftp]
banner = "inside"
plain_from = ["10.0.0.0/8"]
[[listen]]
protocol = "ftp"
address = "127.0.0.1:2121"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:2990"
tls = "implicit"
ftp = { require_tls = true, plain_from = [] }
"#;

#[test]
fn a_listener_lays_its_own_options_over_its_languages_section() {
    let loaded = right(Files::new(TWO_DOORS).load(&[]));
    let section = |number: usize| loaded.config.section_of("ftp", &loaded.config.listen[number]).values;
    assert_eq!(section(0), loaded.config.section("ftp").values);
    let second = section(1);
    assert_eq!(second["banner"].as_str(), Some("inside"), "what it does not say is the section's");
    assert_eq!(second["require_tls"].as_bool(), Some(true));
    assert_eq!(second["plain_from"].as_array().map(Vec::len), Some(0), "a list is replaced");
    let text = explain::text(&loaded);
    let own = text.split_once("\n[listen.ftp]\n").unwrap().1;
    let line = own.lines().find(|line| line.starts_with("require_tls")).unwrap();
    assert!(line.starts_with("require_tls = true ") && line.ends_with("stoa.toml:11"), "{line}");
    assert_eq!(toml::from_str::<Config>(&text).unwrap().listen, loaded.config.listen, "{text}");
}

#[test]
fn rules_of_a_section_are_a_list_of_tables() {
    let text = "[[ftp.accounts]]\nnames = [\"camera-3\"]\nactive = true\n[[ftp.accounts]]\nnames = [\"*\"]\n";
    let loaded = right(Files::new(text).load(&[]));
    let rules = loaded.config.section("ftp").values["accounts"].as_array().cloned().unwrap_or_default();
    assert_eq!((rules.len(), rules[0]["active"].as_bool()), (2, Some(true)));
    let shown = explain::text(&loaded);
    assert_eq!(toml::from_str::<Config>(&shown).unwrap().section("ftp").values, loaded.config.section("ftp").values);
}

#[test]
fn a_listeners_options_are_as_strict_as_the_section() {
    let with = |options: &str| {
        let listen = "[[listen]]\nprotocol = \"ftp\"\naddress = \"127.0.0.1:0\"\n";
        Files::new(&format!("{listen}{options}\n")).wrong(&[])
    };
    let wrong = with("ftp = { require_tsl = true }");
    assert!(wrong.contains("stoa.toml:4:9: unknown key `require_tsl` in [listen[0].ftp]"), "{wrong}");
    assert!(wrong.contains("did you mean `require_tls`?"), "{wrong}");
    let wrong = with("ftp = { require_tls = \"yes\" }");
    assert!(wrong.contains("stoa.toml:4:23: `listen[0].ftp.require_tls` takes true or false"), "{wrong}");
    let wrong = with("ftp = true");
    assert!(wrong.contains("`listen[0].ftp` takes a table, not this"), "{wrong}");
    let wrong = with("smtp = { hostname = \"mx\" }");
    assert!(wrong.contains("stoa.toml:4: listen[0].smtp: options for smtp, but this listener speaks ftp"), "{wrong}");
    let wrong = with("colour = \"red\"");
    assert!(wrong.contains("unknown key `colour` in [listen[0]]"), "{wrong}");
}

#[test]
fn a_missing_file_is_said() {
    let wrong =
        config::load_with(Some("/nowhere/stoa.toml".as_ref()), Vec::new()).expect_err("was accepted").to_string();
    assert!(wrong.contains("/nowhere/stoa.toml: cannot be read"), "{wrong}");
}

#[test]
fn the_explanation_is_the_same_configuration_with_secrets_masked() {
    let files = Files::new(
        "[catalog]\nengine = \"postgres\"\nurl = \"postgres://stoa:geheim@db/stoa\"\n[[user]]\nname = \"a\"\npassword_hash = \"$argon2id$secret\"\n",
    );
    let text = explain::text(&right(files.load(&[])));
    assert!(!text.contains("geheim") && !text.contains("$secret"), "{text}");
    assert!(text.contains("postgres://stoa:***@db/stoa"), "{text}");
    let line = text.lines().find(|line| line.starts_with("engine")).unwrap();
    assert!(line.ends_with("stoa.toml:2"), "{line}");
    toml::from_str::<Config>(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}
