//! XML as WebDAV needs it (RFC 4918 §8.2, §14): small bodies read into a tree under limits, and words written so that they read back.
//!
//! There is no document type, no entity of a client's own, nothing fetched. What is kept of a client is written with the namespaces it
//! needs on itself, so that it can stand anywhere.

use std::fmt::Write as _;

use encoding_rs::{UTF_16BE, UTF_16LE};
use hyper::StatusCode;
use quick_xml::NsReader;
use quick_xml::XmlVersion::Explicit1_0;
use quick_xml::escape::{escape, resolve_xml_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};

use crate::proto::http::reply::Refusal;

/// Elements inside each other.
const DEPTH: usize = 64;
/// Elements in one body.
const ELEMENTS: usize = 4_000;
/// Attributes of one element, namespaces too.
const ATTRIBUTES: usize = 64;
/// Bytes of one name with its namespace.
const NAME: usize = 1_024;

/// WebDAV's own namespace.
pub const DAV: &str = "DAV:";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// A name in its namespace; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    pub space: String,
    pub local: String,
}

/// An element with what is in it.
#[derive(Clone, Debug, Default)]
pub struct Element {
    pub name: Name,
    /// The language in force here, from this element or one around it.
    lang: Option<String>,
    attributes: Vec<(Name, String)>,
    content: Vec<Content>,
}

#[derive(Clone, Debug)]
enum Content {
    Element(Element),
    Text(String),
}

impl Name {
    /// A name of WebDAV's own.
    pub fn dav(local: &str) -> Self {
        Self { space: DAV.to_owned(), local: local.to_owned() }
    }

    /// The local part, of a name of WebDAV's own.
    pub fn in_dav(&self) -> Option<&str> {
        (self.space == DAV).then_some(self.local.as_str())
    }

    /// `{namespace}name`.
    pub fn key(&self) -> String {
        format!("{{{}}}{}", self.space, self.local)
    }

    /// Back from [`Name::key`].
    pub fn from_key(key: &str) -> Self {
        let (space, local) = key.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')).unwrap_or(("", key));
        Self { space: space.to_owned(), local: local.to_owned() }
    }

    /// As an element with nothing in it.
    pub fn write_empty(&self, out: &mut String) {
        let _ = match self.in_dav() {
            Some(local) => write!(out, "<D:{local}/>"),
            None => write!(out, "<{} xmlns=\"{}\"/>", self.local, escape(self.space.as_str())),
        };
    }
}

impl Element {
    /// Child elements.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|content| match content {
            Content::Element(element) => Some(element),
            Content::Text(_) => None,
        })
    }

    /// The first child of WebDAV's own with this name.
    pub fn child(&self, local: &str) -> Option<&Self> {
        self.children().find(|child| child.name.in_dav() == Some(local))
    }

    /// The text directly in it.
    pub fn text(&self) -> String {
        self.content
            .iter()
            .filter_map(|content| match content {
                Content::Text(text) => Some(text.as_str()),
                Content::Element(_) => None,
            })
            .collect()
    }

    /// The whole element as it can stand anywhere.
    pub fn whole(&self) -> String {
        let mut out = String::new();
        let lang = self.lang.as_deref().filter(|_| !self.attributes.iter().any(|(name, _)| is_lang(name)));
        self.write(&mut out, None, lang);
        out
    }

    /// What is in it, as it can stand anywhere.
    pub fn inside(&self) -> String {
        let mut out = String::new();
        self.write_content(&mut out, None);
        out
    }

    fn write(&self, out: &mut String, around: Option<&str>, lang: Option<&str>) {
        let _ = write!(out, "<{}", self.name.local);
        if around != Some(self.name.space.as_str()) {
            let _ = write!(out, " xmlns=\"{}\"", escape(self.name.space.as_str()));
        }
        if let Some(lang) = lang {
            let _ = write!(out, " xml:lang=\"{}\"", escape(lang));
        }
        for (number, (name, value)) in self.attributes.iter().enumerate() {
            let (local, value) = (&name.local, escape(value.as_str()));
            let _ = match name.space.as_str() {
                "" => write!(out, " {local}=\"{value}\""),
                XML => write!(out, " xml:{local}=\"{value}\""),
                space => write!(out, " xmlns:n{number}=\"{}\" n{number}:{local}=\"{value}\"", escape(space)),
            };
        }
        if self.content.is_empty() {
            return out.push_str("/>");
        }
        out.push('>');
        self.write_content(out, Some(&self.name.space));
        let _ = write!(out, "</{}>", self.name.local);
    }

    fn write_content(&self, out: &mut String, around: Option<&str>) {
        for content in &self.content {
            match content {
                Content::Element(element) => element.write(out, around, None),
                Content::Text(text) => out.push_str(&escape(text.as_str())),
            }
        }
    }
}

fn is_lang(name: &Name) -> bool {
    name.space == XML && name.local == "lang"
}

/// Text for our own XML: escaped, and without what no XML can carry.
pub fn text(raw: &str) -> String {
    let clean: String = raw.chars().map(|c| if is_allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
    escape(clean).into_owned()
}

/// What may occur in XML 1.0 at all.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Reads a body; `None` when it is empty.
///
/// # Errors
/// 400 for what is not well-formed, names an entity or a document type, or is not UTF-8 or UTF-16; 413 beyond the limits.
pub fn read(body: &[u8]) -> Result<Option<Element>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let text = decode(body)?;
    if !text.chars().all(is_allowed) {
        return Err(bad("a character that no XML may have"));
    }
    Tree::grow(&text).map(Some)
}

/// The body as text: UTF-16 by its byte order mark, else UTF-8.
fn decode(body: &[u8]) -> Result<String, Refusal> {
    let (wide, rest) = match body {
        [0xfe, 0xff, rest @ ..] => (Some(UTF_16BE), rest),
        [0xff, 0xfe, rest @ ..] => (Some(UTF_16LE), rest),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => (None, rest),
    };
    let text = match wide {
        None => std::str::from_utf8(rest).ok().map(str::to_owned),
        Some(encoding) => {
            encoding.decode_without_bom_handling_and_without_replacement(rest).map(std::borrow::Cow::into_owned)
        }
    };
    text.ok_or_else(|| bad("bytes that are neither UTF-8 nor UTF-16"))
}

/// A tree in the making.
#[derive(Default)]
struct Tree {
    /// Elements begun and not ended, the outermost first.
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree {
    fn grow(text: &str) -> Result<Element, Refusal> {
        let mut reader = NsReader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().check_comments = true;
        let mut tree = Self::default();
        loop {
            // Its own words would quote the body back; where it happened is enough.
            let event = reader.read_event().map_err(|_| bad("it is not well-formed"))?;
            match event {
                Event::Start(start) => tree.start(&reader, &start)?,
                Event::End(_) => tree.end(),
                Event::Text(text) => tree.text(&text.xml_content(Explicit1_0))?,
                Event::CData(text) => tree.text(&text.xml_content(Explicit1_0))?,
                Event::GeneralRef(name) => {
                    let sign = name.resolve_char_ref().map_err(|_| bad("a character reference that means nothing"))?;
                    match (sign, resolve_xml_entity(&name)) {
                        (Some(sign), _) if is_allowed(sign) => tree.text(sign.encode_utf8(&mut [0; 4]))?,
                        (None, Some(text)) => tree.text(text)?,
                        _ => return Err(bad("an entity of its own")),
                    }
                }
                Event::Decl(declaration) => {
                    let named = declaration.encoding().transpose().map_err(|_| bad("it is not well-formed"))?;
                    if named.is_some_and(|named| !is_unicode(&named)) {
                        return Err(bad("an encoding other than UTF-8 and UTF-16"));
                    }
                }
                Event::DocType(_) => return Err(bad("a document type")),
                Event::Comment(_) | Event::PI(_) | Event::Empty(_) => {}
                Event::Eof => break,
            }
        }
        match tree.root {
            Some(root) if tree.open.is_empty() => Ok(root),
            _ => Err(bad("it is not well-formed")),
        }
    }

    fn start(&mut self, reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<(), Refusal> {
        self.elements += 1;
        if self.open.len() >= DEPTH || self.elements > ELEMENTS {
            return Err(large(&format!("more than {ELEMENTS} elements, or more than {DEPTH} inside each other")));
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err(bad("it is not well-formed"));
        }
        let (space, local) = reader.resolver().resolve_element(start.name());
        let mut element = Element {
            name: name(&space, local.into_inner())?,
            lang: self.open.last().and_then(|around| around.lang.clone()),
            ..Element::default()
        };
        for (number, attribute) in start.attributes().enumerate() {
            if number >= ATTRIBUTES {
                return Err(large(&format!("more than {ATTRIBUTES} attributes of one element")));
            }
            let attribute = attribute.map_err(|_| bad("it is not well-formed"))?;
            let value = attribute.normalized_value(Explicit1_0).map_err(|_| bad("an entity of its own"))?;
            if !value.chars().all(is_allowed) {
                return Err(bad("a character that no XML may have"));
            }
            match attribute.key.as_namespace_binding() {
                // Namespaces in XML §5: a prefix cannot be taken back.
                Some(PrefixDeclaration::Named(_)) if value.is_empty() => {
                    return Err(bad("a prefix without a namespace"));
                }
                Some(_) => {}
                None => {
                    let (space, local) = reader.resolver().resolve_attribute(attribute.key);
                    let name = name(&space, local.into_inner())?;
                    if is_lang(&name) {
                        element.lang = Some(value.clone().into_owned());
                    }
                    element.attributes.push((name, value.into_owned()));
                }
            }
        }
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) {
        let Some(element) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(around) => around.content.push(Content::Element(element)),
            None => self.root = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Refusal> {
        let Some(element) = self.open.last_mut() else {
            return if text.trim().is_empty() { Ok(()) } else { Err(bad("it is not well-formed")) };
        };
        match element.content.last_mut() {
            Some(Content::Text(before)) => before.push_str(text),
            _ => element.content.push(Content::Text(text.to_owned())),
        }
        Ok(())
    }
}

fn name(space: &ResolveResult<'_>, local: &str) -> Result<Name, Refusal> {
    let space = match space {
        ResolveResult::Bound(space) => unescape(space.into_inner()).map_err(|_| bad("an entity of its own"))?,
        ResolveResult::Unbound => "".into(),
        ResolveResult::Unknown(_) => return Err(bad("a prefix without a namespace")),
    };
    if space.len() + local.len() > NAME {
        return Err(large(&format!("a name of more than {NAME} bytes")));
    }
    if !is_name(local) {
        return Err(bad("it is not well-formed"));
    }
    Ok(Name { space: space.into_owned(), local: local.to_owned() })
}

/// A name without a colon, as strictly as matters when it is written again.
fn is_name(local: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_alphanumeric());
    local.starts_with(letter)
        && local.chars().all(|c| letter(c) || c.is_ascii_digit() || matches!(c, '-' | '.' | '\u{b7}'))
}

fn is_unicode(encoding: &str) -> bool {
    ["utf-8", "utf8", "utf-16", "us-ascii"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

fn bad(what: &str) -> Refusal {
    Refusal::bad(format!("the XML of the request cannot be read: {what}"))
}

fn large(what: &str) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the XML of the request is too large: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        read(text.as_bytes()).unwrap().unwrap().whole()
    }

    fn refused(body: &[u8]) -> u16 {
        read(body).expect_err("refused").status.as_u16()
    }

    #[test]
    fn what_is_kept_stands_by_itself() {
        for (text, kept) in [
            ("<a/>", "<a xmlns=\"\"/>"),
            ("<x:a xmlns:x='urn:x'><x:b/><c/></x:a>", "<a xmlns=\"urn:x\"><b/><c xmlns=\"\"/></a>"),
            (
                "<a xmlns='DAV:' xmlns:y='u' y:t='&lt;&quot;'>&amp;<![CDATA[<b>]]>&#x41;</a>",
                "<a xmlns=\"DAV:\" xmlns:n0=\"u\" n0:t=\"&lt;&quot;\">&amp;&lt;b&gt;A</a>",
            ),
            ("<a xml:lang='de'> x </a>", "<a xmlns=\"\" xml:lang=\"de\"> x </a>"),
        ] {
            assert_eq!(again(text), kept);
            assert_eq!(again(kept), kept, "and reads back as itself");
        }
    }

    #[test]
    fn a_language_around_a_property_is_its_language() {
        let root = read(b"<prop xml:lang='fr'><a>x</a></prop>").unwrap().unwrap();
        assert_eq!(root.children().next().unwrap().whole(), "<a xmlns=\"\" xml:lang=\"fr\">x</a>");
    }

    #[test]
    fn hostile_bodies_are_refused_before_they_cost_anything() {
        let bomb = b"<!DOCTYPE a [<!ENTITY x \"aaaa\"><!ENTITY y \"&x;&x;\">]><a>&y;</a>";
        assert_eq!(refused(bomb), 400);
        assert_eq!(refused(b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"), 400);
        assert_eq!(refused(b"<a>&unknown;</a>"), 400);
        assert_eq!(refused(b"<a b='&unknown;'/>"), 400);
        assert_eq!(refused("<a>".repeat(200_000).as_bytes()), 413);
        assert_eq!(refused(format!("<a>{}</a>", "<b/>".repeat(100_000)).as_bytes()), 413);
        assert_eq!(refused(format!("<{}/>", "n".repeat(100_000)).as_bytes()), 413);
        let many = (0..1_000).fold(String::new(), |many, n| many + &format!(" a{n}=''"));
        assert_eq!(refused(format!("<a{many}/>").as_bytes()), 413);
        for body in [
            "<a>",
            "<a></b>",
            "</a>",
            "a",
            "<a/><b/>",
            "<a/>x",
            "<x:a/>",
            "<a xmlns:x=''/>",
            "<a b='1' b='2'/>",
            "<a><!-- -- --></a>",
            "<a>&#1;</a>",
            "<a>&#xFFFFFFFF;</a>",
            "<a b=c/>",
            "<1a/>",
            "<a\"b/>",
            "<?xml version='1.0' encoding='latin1'?><a/>",
            " ",
        ] {
            assert_eq!(refused(body.as_bytes()), 400, "{body}");
        }
        assert_eq!(refused(b"<a>\xff</a>"), 400);
        assert_eq!(refused(b"<a>\x00</a>"), 400);
        assert_eq!(refused(b"\xff\xfe<\x00a"), 400);
    }

    #[test]
    fn utf_16_and_a_byte_order_mark_are_read() {
        let wide: Vec<u8> =
            [0xfeff_u16].into_iter().chain("<a>ü</a>".encode_utf16()).flat_map(u16::to_be_bytes).collect();
        assert_eq!(read(&wide).unwrap().unwrap().text(), "ü");
        assert_eq!(read("\u{feff}<a>ü</a>".as_bytes()).unwrap().unwrap().text(), "ü");
        assert!(read(b"").unwrap().is_none());
    }

    #[test]
    fn a_key_is_the_name_again() {
        for name in [Name::dav("x"), Name { space: "a}b".into(), local: "c".into() }, Name::default()] {
            assert_eq!(Name::from_key(&name.key()), name);
        }
        assert_eq!(text("a<b>\u{1}"), "a&lt;b&gt;\u{fffd}");
    }
}
