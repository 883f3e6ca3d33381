//! The pages in a real browser: headless Chromium, driven over a pipe by its own protocol. Pages run without scripts of ours;
//! the few expressions here only do what a hand would do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::Site;

/// Set to 1 to pass without Chromium, knowingly.
const SKIP: &str = "STOA_TEST_SKIP_BROWSER";

struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    count: u64,
    session: String,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// Chromium under the names distributions give it.
fn program() -> &'static str {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|it| it.success())
    });
    found.unwrap_or_else(|| panic!("no Chromium here: install `chromium`, or set {SKIP}=1 to test without it"))
}

impl Browser {
    fn open() -> Option<Self> {
        if std::env::var(SKIP).is_ok_and(|value| value == "1") {
            println!("{SKIP}=1: not tested in a browser");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        // Chromium speaks on descriptors 3 and 4; a shell puts our pipes there.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", program()])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut browser =
            Self { child, to, from, count: 0, session: String::new(), events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "DOM"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    fn read(&mut self) -> Value {
        let mut line = Vec::new();
        self.from.read_until(0, &mut line).unwrap();
        assert_eq!(line.pop(), Some(0), "the browser is gone");
        serde_json::from_slice(&line).unwrap()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.count += 1;
        let mut message = json!({ "id": self.count, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == self.count {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Does something that leads to another page, and waits for that.
    fn onward(&mut self, act: impl FnOnce(&mut Self)) {
        self.events.clear();
        act(self);
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read();
            self.events.push(event);
        }
    }

    fn visit(&mut self, url: &str) {
        let url = url.to_owned();
        self.onward(|browser| {
            browser.call("Page.navigate", &json!({ "url": url }));
        });
    }

    fn ask(&mut self, expression: &str) -> String {
        let answer = self.call("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        let value = &answer["result"]["value"];
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    fn click(&mut self, selector: &str) {
        let expression = format!("document.querySelector({}).click()", json!(selector));
        self.onward(|browser| {
            browser.ask(&expression);
        });
    }

    fn fill(&mut self, selector: &str, text: &str) {
        self.ask(&format!("document.querySelector({}).value = {}", json!(selector), json!(text)));
    }

    fn choose(&mut self, selector: &str, files: &[&std::path::Path]) {
        let document = self.call("DOM.getDocument", &json!({}));
        let root = &document["root"]["nodeId"];
        let found = self.call("DOM.querySelector", &json!({ "nodeId": root, "selector": selector }));
        self.call("DOM.setFileInputFiles", &json!({ "nodeId": found["nodeId"], "files": files }));
    }

    /// Names in the folder's page, in its order.
    fn names(&mut self) -> String {
        self.ask("[...document.querySelectorAll('td.name')].map(cell => cell.innerText.trim()).join('|')")
    }

    fn sign_in(&mut self, site: &Site, place: &str) {
        self.visit(&site.url(place));
        assert!(self.ask("location.pathname").starts_with("/-/login"));
        self.fill("input[name=name]", "alice");
        self.fill("input[name=password]", "wonderland");
        self.click("form button");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Its own children let go of the profile folder a moment later.
        let limit = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().is_ok_and(|end| end.is_none()) && Instant::now() < limit {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_person_signs_in_adds_opens_and_deletes_a_file_without_scripts() {
    let site = Site::open();
    let Some(mut browser) = Browser::open() else { return };
    browser.sign_in(&site, "/scans/");
    assert_eq!(browser.ask("location.pathname"), "/scans/");
    assert!(browser.ask("document.querySelector('.hint').innerText").contains("empty"));
    assert_eq!(browser.ask("document.querySelectorAll('script').length"), "0");
    assert_eq!(browser.ask("document.cookie"), "", "the session is out of a script's reach");
    assert_ne!(browser.ask("getComputedStyle(document.querySelector('.bar')).display"), "block", "the style is loaded");

    let (one, two) = (site.folder.path().join("r\u{e9}sum\u{e9} \"1\".txt"), site.folder.path().join("two.txt"));
    std::fs::write(&one, "first").unwrap();
    std::fs::write(&two, vec![b'2'; 300_000]).unwrap();
    browser.choose("input[type=file]", &[&one, &two]);
    browser.click("form[enctype] button");
    assert_eq!(browser.ask("document.querySelector('.notice').innerText"), "2 files were added.");
    assert_eq!(browser.names(), "r\u{e9}sum\u{e9} \"1\".txt|two.txt");
    assert_eq!(std::fs::read(site.on_disk("scans/two.txt")).unwrap(), vec![b'2'; 300_000]);

    browser.fill("input#name", "new one");
    browser.click("button[value=folder]");
    assert_eq!(browser.ask("decodeURIComponent(location.pathname)"), "/scans/new one/");
    browser.click(".crumbs a:nth-of-type(2)");
    assert_eq!(browser.names(), "new one|r\u{e9}sum\u{e9} \"1\".txt|two.txt");
    browser.click("td.name a.file");
    assert_eq!(browser.ask("document.body.innerText"), "first");

    browser.visit(&site.url("/scans/"));
    browser.click("tr:nth-of-type(2) .danger");
    assert_eq!(browser.ask("document.querySelector('h1').innerText"), "Delete r\u{e9}sum\u{e9} \"1\".txt?");
    browser.click(".actions a");
    assert_eq!(browser.names(), "new one|r\u{e9}sum\u{e9} \"1\".txt|two.txt", "it was kept");
    browser.click("tr:nth-of-type(2) .danger");
    browser.click(".actions .danger");
    assert_eq!(browser.names(), "new one|two.txt");
    browser.click("th.size a");
    assert_eq!(browser.names(), "new one|two.txt");

    browser.click(".account button");
    assert!(browser.ask("location.pathname").starts_with("/-/login"));
    browser.visit(&site.url("/scans/"));
    assert!(browser.ask("location.pathname").starts_with("/-/login"), "the session has ended");
}

#[test]
fn a_person_renames_one_file_and_chooses_others_to_delete() {
    let site = Site::open();
    for name in ["a", "b", "c", "d"] {
        site.put(&format!("/scans/{name}"), name);
    }
    let Some(mut browser) = Browser::open() else { return };
    browser.sign_in(&site, "/scans/");
    let bar = "getComputedStyle(document.querySelector('.picked')).display";
    assert_eq!(browser.ask(bar), "none", "nothing is chosen");
    browser.ask("document.querySelector('input[value=b]').click()");
    browser.ask("document.querySelector('input[value=d]').click()");
    assert_eq!(browser.ask(bar), "flex");
    browser.click(".picked button[value=remove]");
    assert_eq!(browser.ask("[...document.querySelectorAll('.names li')].map(one => one.innerText).join()"), "b,d");
    browser.click(".actions .danger");
    assert_eq!(browser.names(), "a|c");
    browser.fill("tr:nth-of-type(1) input[name=to]", "z \u{e4}.txt");
    browser.click("tr:nth-of-type(1) button[value=rename]");
    assert_eq!(browser.ask("document.querySelector('.notice').innerText"), "Renamed to z ä.txt.");
    assert_eq!(browser.names(), "c|z \u{e4}.txt");
    assert_eq!(std::fs::read(site.on_disk("scans/z \u{e4}.txt")).unwrap(), b"a");
}

#[test]
fn what_was_uploaded_cannot_act_as_the_person_who_opens_it() {
    let site = Site::open();
    let attack = "<title>calm</title><script>document.title = 'ran'; fetch('/scans/kept', {method: 'DELETE'})</script>\
                  <form id=f method=post action=/-/logout></form><img src=x onerror=\"document.title='ran'\">";
    let svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg'>{}</svg>",
        "<script>document.documentElement.id='ran'</script>"
    );
    site.put("/scans/kept", "x");
    site.put("/scans/a.html", attack);
    site.put("/scans/a.svg", &svg);
    site.put("/scans/a", attack);
    let Some(mut browser) = Browser::open() else { return };
    browser.sign_in(&site, "/scans/");
    browser.visit(&site.url("/scans/a.html"));
    assert_eq!(browser.ask("document.title"), "calm");
    assert_eq!(browser.ask("origin"), "null", "an origin of its own");
    browser.visit(&site.url("/scans/a.svg"));
    assert_eq!(browser.ask("document.documentElement.id"), "");
    browser.visit(&site.url("/scans/"));
    assert_eq!(browser.names(), "a|a.html|a.svg|kept");
}
