//! The values of `[auth]`: secrets, API keys, and what goes with them. What is secret is redacted
//! wherever it is shown and left out of every message.

use std::fmt;

use reqwest::Url;
use secrecy::SecretString;
use tidewire_auth::{
    Access, ApiKeySecret, ApiKeySpec, HmacAlgorithm, MIN_API_KEY_BYTES, Verb, Verbs,
};
use tidewire_protocol::{Channel, Event};
use toml::de::DeTable;

use super::setting::{Given, Setting, Word, quoted};
use super::source::given;

/// A field of secrets: one, or a list of them.
pub(super) struct Secrets<'a>(pub(super) &'a mut Vec<SecretString>);

impl Setting for Secrets<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let texts = match given {
            // As it is: a secret may hold commas.
            Given::Raw(text) | Given::Text(text) => vec![text.clone()],
            Given::List(_) => given.texts().unwrap_or_default(),
            _ => Vec::new(),
        };
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            return Err("must be a string, or a list of strings".to_owned());
        }
        *self.0 = texts.into_iter().map(SecretString::from).collect();
        Ok(())
    }
    fn show(&self) -> Option<String> {
        match self.0.len() {
            0 => None,
            1 => Some(quoted(REDACTED)),
            n => Some(format!("[{}]", vec![quoted(REDACTED); n].join(", "))),
        }
    }
    fn kind(&self) -> &'static str {
        "string or list of strings"
    }
    fn allowed(&self) -> String {
        "at least 32 bytes".to_owned()
    }
    fn secret(&self) -> bool {
        true
    }
}

/// What stands in the place of a secret that is shown.
pub(super) const REDACTED: &str = "REDACTED";

/// A field of API keys.
pub(super) struct ApiKeys<'a>(pub(super) &'a mut Vec<ApiKeySpec>);

impl Setting for ApiKeys<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        *self.0 = match given {
            Given::Raw(text) => text.split(',').zip(1..).map(pair).collect::<Result<_, _>>()?,
            Given::List(items) => items.iter().map(table).collect::<Result<_, _>>()?,
            _ => return Err(format!("must be {}", self.allowed())),
        };
        Ok(())
    }
    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.0.iter().map(shown_key).collect();
        Some(format!("[{}]", items.join(", ")))
    }
    fn kind(&self) -> &'static str {
        "list of tables"
    }
    fn allowed(&self) -> String {
        "`[{ name = \"…\", key = \"…\" }]`".to_owned()
    }
    fn secret(&self) -> bool {
        true
    }
}

/// What a key may do, without the key itself.
fn shown_key(key: &ApiKeySpec) -> String {
    let mut shown = format!("{{ name = {}, key = {}", quoted(&key.name), quoted(REDACTED));
    let verbs = Verb::ALL.into_iter().filter(|verb| key.verbs.has(*verb));
    let verbs: Vec<_> = verbs.map(|verb| verb.as_str().to_owned()).collect();
    let verbs = (key.verbs != Verbs::ALL).then_some(&verbs);
    let lists = [
        ("subscribe", key.subscribe.as_ref()),
        ("publish", key.publish.as_ref()),
        ("verbs", verbs),
    ];
    for (member, list) in lists {
        if let Some(list) = list {
            let items: Vec<_> = list.iter().map(|item| quoted(item)).collect();
            shown.push_str(&format!(", {member} = [{}]", items.join(", ")));
        }
    }
    shown + " }"
}

/// `name=key` or `name=sha256:hex`, of a variable. Faults name it by its number: where a key holds a
/// comma, what seems to be a name is a piece of the key.
fn pair((text, number): (&str, usize)) -> Result<ApiKeySpec, String> {
    let wrong = || "must be name=key, or name=sha256:hex, separated by commas".to_owned();
    let (name, key) = text.trim().split_once('=').ok_or_else(wrong)?;
    let secret = match key.strip_prefix("sha256:") {
        Some(hex) => hash(&format!("number {number}"), hex)?,
        None if key.len() < MIN_API_KEY_BYTES => {
            return Err(format!(
                "the key number {number} is too short: at least {MIN_API_KEY_BYTES} bytes, and no commas"
            ));
        }
        None => ApiKeySecret::Plain(key.to_owned().into()),
    };
    Ok(spec(name, secret))
}

fn spec(name: &str, secret: ApiKeySecret) -> ApiKeySpec {
    let name = name.to_owned();
    ApiKeySpec { name, secret, subscribe: None, publish: None, verbs: Verbs::ALL }
}

fn table(item: &Given) -> Result<ApiKeySpec, String> {
    let Given::Table(members) = item else {
        return Err("each key must be a table: { name = \"…\", key = \"…\" }".to_owned());
    };
    let find = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, it)| it);
    let name = find("name").and_then(Given::text).ok_or("each key must have a 'name'")?;
    let of = |what: &str| format!("the key {}: {what}", quoted(name));
    let text = |member: &str| match find(member) {
        None => Ok(None),
        Some(given) => {
            given.text().map(Some).ok_or_else(|| of(&format!("'{member}' must be a string")))
        }
    };
    let secret = match (text("key")?, text("sha256")?) {
        (Some(key), None) => ApiKeySecret::Plain(key.to_owned().into()),
        (None, Some(hex)) => hash(&quoted(name), hex)?,
        _ => return Err(of("give either 'key' or 'sha256'")),
    };
    let list = |member: &str| match find(member) {
        None => Ok(None),
        Some(given) => {
            let wrong = || of(&format!("'{member}' must be a list of strings"));
            given.texts().map(Some).ok_or_else(wrong)
        }
    };
    let verbs = match list("verbs")? {
        None => Verbs::ALL,
        Some(names) => {
            names.iter().map(|name| verb(name).map_err(|e| of(&e))).collect::<Result<_, _>>()?
        }
    };
    const KNOWN: [&str; 6] = ["name", "key", "sha256", "subscribe", "publish", "verbs"];
    if let Some((unknown, _)) = members.iter().find(|(known, _)| !KNOWN.contains(&&**known)) {
        return Err(of(&format!("no member {}; allowed: {}", quoted(unknown), KNOWN.join(", "))));
    }
    let (subscribe, publish) = (list("subscribe")?, list("publish")?);
    Ok(ApiKeySpec { subscribe, publish, verbs, ..spec(name, secret) })
}

fn verb(name: &str) -> Result<Verb, String> {
    let all = Verb::ALL.map(Verb::as_str).join(", ");
    let known = Verb::ALL.into_iter().find(|verb| verb.as_str() == name);
    known.ok_or_else(|| format!("'verbs' may hold {all}, not {}", quoted(name)))
}

fn hash(which: &str, hex: &str) -> Result<ApiKeySecret, String> {
    let wrong = || format!("the key {which}: a SHA-256 has 64 hex digits");
    let digits = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        let pair = hex.get(at..at + 2).filter(|_| digits).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(ApiKeySecret::Sha256(hash))
}

/// Reads the text of `auth.api_keys_file`. The error goes on from its name and holds nothing of
/// what the file holds.
pub(crate) fn read_api_keys_file(text: &str) -> Result<Vec<ApiKeySpec>, String> {
    let root = DeTable::parse(text).map_err(|_| "is no TOML".to_owned())?;
    let mut keys = Vec::new();
    for (name, value) in root.get_ref() {
        if name.get_ref() != "api_keys" {
            return Err("may hold nothing but api_keys = [ … ]".to_owned());
        }
        ApiKeys(&mut keys).set(&given(value))?;
    }
    Ok(keys)
}

impl Word for HmacAlgorithm {
    const ALLOWED: &'static str = "`HS256`, `HS384`, `HS512`";

    fn read(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
        known.ok_or_else(|| "must be \"HS256\", \"HS384\" or \"HS512\"".to_owned())
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Word for Access {
    const ALLOWED: &'static str = "`anyone`, `user`, `granted`, `nobody`";

    fn read(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|access| access.as_str() == text);
        known.ok_or_else(|| "must be \"anyone\", \"user\", \"granted\" or \"nobody\"".to_owned())
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// Any text of one line: a path, an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneLine(String);

impl OneLine {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for OneLine {
    const ALLOWED: &'static str = "a text";
    // Where a path is asked for, somebody puts in what the file holds.
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("must be a text of one line, not empty".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceName(String);

impl NamespaceName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for NamespaceName {
    const ALLOWED: &'static str = "the name of a namespace";

    fn read(text: &str) -> Result<Self, String> {
        if text.contains(':') || Channel::check(&format!("{text}:x")).is_err() {
            return Err("must be what stands before the ':' of channels, such as user".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The name of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventName(String);

impl EventName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for EventName {
    const ALLOWED: &'static str = "names of events";

    fn read(text: &str) -> Result<Self, String> {
        Event::new(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where keys are fetched from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JwksUrl(Url);

impl JwksUrl {
    /// The address.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Word for JwksUrl {
    const ALLOWED: &'static str = "`https://…`, `http://…` in a private network";
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        safe_url(text, "https://id.example/.well-known/jwks.json", "put keys in").map(Self)
    }

    /// Without the query, which may hold a key; a user it has none.
    fn show(&self) -> String {
        let mut shown = self.0.clone();
        if shown.query().is_some() {
            shown.set_query(Some(REDACTED));
        }
        shown.to_string()
    }
}

/// Where the application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookUrl(Url);

impl HookUrl {
    /// The address.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Word for HookUrl {
    const ALLOWED: &'static str = "`https://…`, `http://…` in a private network";

    fn read(text: &str) -> Result<Self, String> {
        safe_url(text, "http://app:3000/tidewire/subscribe", "answer instead").map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// An address to which nobody on the way can do anything; `harm` is what they could.
fn safe_url(text: &str, example: &str, harm: &str) -> Result<Url, String> {
    let wrong = || format!("must be such as {example}, without a user");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().unwrap_or_default();
    if !url.username().is_empty() || url.password().is_some() || host.is_empty() {
        return Err(wrong());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near(host) => Ok(url),
        "http" => Err(format!(
            "must be https: whoever sits on the way could {harm}; http only within a private \
            network (a private address, or a name without a dot or below .internal)"
        )),
        _ => Err(wrong()),
    }
}

/// Whether a host is this machine or in a private network, as far as its name tells.
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => !host.contains('.') || host.ends_with(".internal"),
    }
}
