//! What is wrong with a configuration, in words for whoever wrote it.

use std::fmt;

use super::origin::Origin;

/// One or more problems; the text lists them all. The one to fix it reads the message: each names
/// the key, what was given, what is allowed and where the value came from.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The error with these problems, or nothing if there are none.
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "configuration: {only}"),
            several => {
                write!(f, "configuration: {} problems", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// The key, or the file or variable when there is no key.
    pub(super) subject: String,
    /// What was given, as it was written; absent for secrets.
    pub(super) given: Option<String>,
    /// What is wrong or allowed.
    pub(super) text: String,
    /// Where it was given.
    pub(super) origin: Option<Origin>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(given) = &self.given {
            write!(f, " = {given}")?;
        }
        write!(f, ": {}", self.text)?;
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        Ok(())
    }
}
