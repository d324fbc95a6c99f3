//! The kinds of value that a key may have: how each is read, checked, shown and explained.
//!
//! Each type here lends a field of the structure for the walk and knows the bounds that go with it.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A value as a source gave it. Never `Debug`: it may be a secret.
pub(super) enum Given {
    /// Untyped text: environment and flags.
    Raw(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file; absent when it is beyond 64 bits.
    Integer(Option<i64>),
    /// A boolean of the file.
    Bool(bool),
    /// An array of the file.
    List(Vec<Given>),
    /// A table within an array of the file, as it was written.
    Table(Vec<(String, Given)>),
    /// Something of the file that no key wants: a float, a date.
    Other,
}

impl Given {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Raw(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => *n,
            Self::Raw(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            Self::Raw(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The items: an array of strings, or text with commas.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Raw(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(str::to_owned).collect())
            }
            Self::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
            _ => None,
        }
    }
}

/// A field of the structure on loan, with its bounds.
pub(super) trait Setting {
    /// Takes the value; else says what is allowed, in words that go on from "key = value: ".
    fn set(&mut self, given: &Given) -> Result<(), String>;
    /// The present value as TOML writes it (secrets redacted); `None` if it is not set.
    fn show(&self) -> Option<String>;
    /// The type, for the page.
    fn kind(&self) -> &'static str;
    /// What is allowed, for the page and for messages.
    fn allowed(&self) -> String;
    /// Whether what was given must not be repeated in messages.
    fn secret(&self) -> bool {
        false
    }
}

/// A field that holds a whole number, or none.
pub(super) trait Whole {
    /// Puts the number there; false if it does not fit.
    fn put(&mut self, n: u64) -> bool;
    /// The number.
    fn get(&self) -> Option<u64>;
}

macro_rules! whole {
    ($($t:ty),*) => {$(
        impl Whole for $t {
            fn put(&mut self, n: u64) -> bool {
                <$t>::try_from(n).map(|n| *self = n).is_ok()
            }
            fn get(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}
whole!(u16, u32, usize);

impl<T: Whole + Default> Whole for Option<T> {
    fn put(&mut self, n: u64) -> bool {
        self.insert(T::default()).put(n)
    }
    fn get(&self) -> Option<u64> {
        self.as_ref().and_then(Whole::get)
    }
}

/// A whole number within bounds.
pub(super) struct Number<'a>(pub(super) &'a mut dyn Whole, pub(super) RangeInclusive<u32>);

impl Setting for Number<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let fits = |n: &i64| u32::try_from(*n).is_ok_and(|n| self.1.contains(&n));
        match given.integer().filter(fits) {
            Some(n) if self.0.put(n.unsigned_abs()) => Ok(()),
            _ => Err(format!("must be {}", self.allowed())),
        }
    }
    fn show(&self) -> Option<String> {
        self.0.get().map(|n| n.to_string())
    }
    fn kind(&self) -> &'static str {
        "integer"
    }
    fn allowed(&self) -> String {
        match (*self.1.start(), *self.1.end()) {
            (low, u32::MAX) => format!("a whole number from {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        }
    }
}

/// A length of time with its unit.
pub(super) struct Time<'a>(pub(super) &'a mut Duration, pub(super) RangeInclusive<Duration>);

impl Setting for Time<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if given.integer().is_some() || given.text().is_some_and(digits) {
            return Err(format!("must be {}: write a unit: 15s", self.allowed()));
        }
        match given.text().and_then(|text| humantime::parse_duration(text.trim()).ok()) {
            Some(time) if self.1.contains(&time) => {
                *self.0 = time;
                Ok(())
            }
            Some(_) => Err(format!("must be {}", self.allowed())),
            None => {
                Err(format!("must be {}, written as in \"500ms\", \"15s\", \"5m\"", self.allowed()))
            }
        }
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&show_time(*self.0)))
    }
    fn kind(&self) -> &'static str {
        "time"
    }
    fn allowed(&self) -> String {
        format!("a time from {} to {}", show_time(*self.1.start()), show_time(*self.1.end()))
    }
}

/// As a person writes it: `15s`, `1m 30s`.
pub(super) fn show_time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A number of bytes, bare or with a binary unit.
pub(super) struct Size<'a>(pub(super) &'a mut usize, pub(super) RangeInclusive<usize>);

/// A number of bytes that may be absent.
pub(super) struct MaybeSize<'a>(pub(super) &'a mut Option<usize>, pub(super) RangeInclusive<usize>);

impl Setting for MaybeSize<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let mut bytes = 0;
        Size(&mut bytes, self.1.clone()).set(given)?;
        *self.0 = Some(bytes);
        Ok(())
    }
    fn show(&self) -> Option<String> {
        self.0.map(|bytes| quoted(&show_size(bytes)))
    }
    fn kind(&self) -> &'static str {
        "size"
    }
    fn allowed(&self) -> String {
        Size(&mut 0, self.1.clone()).allowed()
    }
}

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Setting for Size<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let bytes = match given.integer() {
            Some(n) => usize::try_from(n).ok(),
            None => given.text().and_then(|text| parse_size(text.trim())),
        };
        match bytes.filter(|bytes| self.1.contains(bytes)) {
            Some(bytes) => {
                *self.0 = bytes;
                Ok(())
            }
            None => Err(format!("must be {}, written as in 65536 or \"64KiB\"", self.allowed())),
        }
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&show_size(*self.0)))
    }
    fn kind(&self) -> &'static str {
        "size"
    }
    fn allowed(&self) -> String {
        format!("a size from {} to {}", show_size(*self.1.start()), show_size(*self.1.end()))
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
    number.checked_mul(*factor)
}

/// In the largest unit that divides it.
pub(super) fn show_size(bytes: usize) -> String {
    let divides = |(_, factor): &&(&str, usize)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let (unit, factor) = UNITS.iter().find(divides).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Yes or no.
pub(super) struct Switch<'a>(pub(super) &'a mut bool);

impl Setting for Switch<'_> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        *self.0 = given.boolean().ok_or("must be true or false")?;
        Ok(())
    }
    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
    fn kind(&self) -> &'static str {
        "boolean"
    }
    fn allowed(&self) -> String {
        "true, false".to_owned()
    }
}

/// A type that is written as text.
pub(super) trait Word: Sized {
    /// What is allowed, in words that go on from "must be ".
    const ALLOWED: &'static str;
    /// Whether the text must not be repeated in messages.
    const SECRET: bool = false;
    /// Reads it; the error goes on from "key: ".
    fn read(text: &str) -> Result<Self, String>;
    /// As it may be shown to anybody.
    fn show(&self) -> String;
}

/// A field that is written as text and always has a value.
pub(super) struct Text<'a, T>(pub(super) &'a mut T);

impl<T: Word> Setting for Text<'_, T> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        *self.0 = read_word(given)?;
        Ok(())
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.0.show()))
    }
    fn kind(&self) -> &'static str {
        "string"
    }
    fn allowed(&self) -> String {
        T::ALLOWED.to_owned()
    }
    fn secret(&self) -> bool {
        T::SECRET
    }
}

/// A field that is written as text and may be absent.
pub(super) struct Maybe<'a, T>(pub(super) &'a mut Option<T>);

impl<T: Word> Setting for Maybe<'_, T> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        *self.0 = Some(read_word(given)?);
        Ok(())
    }
    fn show(&self) -> Option<String> {
        self.0.as_ref().map(|value| quoted(&value.show()))
    }
    fn kind(&self) -> &'static str {
        "string"
    }
    fn allowed(&self) -> String {
        T::ALLOWED.to_owned()
    }
    fn secret(&self) -> bool {
        T::SECRET
    }
}

fn read_word<T: Word>(given: &Given) -> Result<T, String> {
    let text = given.text().ok_or_else(|| format!("must be a string: {}", T::ALLOWED))?;
    T::read(text.trim())
}

/// A list of things that are written as text.
pub(super) struct Many<'a, T>(pub(super) &'a mut Vec<T>);

impl<T: Word> Setting for Many<'_, T> {
    fn set(&mut self, given: &Given) -> Result<(), String> {
        let texts = given.texts().ok_or("must be a list of strings: [\"…\", \"…\"]")?;
        let read =
            |text: &String| T::read(text).map_err(|wrong| format!("{}: {wrong}", quoted(text)));
        *self.0 = texts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(())
    }
    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.0.iter().map(|item| quoted(&item.show())).collect();
        Some(format!("[{}]", items.join(", ")))
    }
    fn kind(&self) -> &'static str {
        "list of strings"
    }
    fn allowed(&self) -> String {
        T::ALLOWED.to_owned()
    }
}

/// As TOML writes a basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
