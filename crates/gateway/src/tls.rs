//! The certificate of the listener: read at the start, and again when its files change.
//!
//! Connections take what is in force when they come ([`Certificates::config`]) and keep it; the binary
//! loads it and tells it to reload at SIGHUP. A pair that cannot be used replaces nothing. After the start files
//! are read on threads that may wait, never on those that serve.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Counter;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use thiserror::Error;
use tokio::sync::Notify;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::Decode as _;

use crate::files::{self, Holds};

/// How often the files are looked at. They count as changed when two looks in a row find them so,
/// because certificate and key are not written in one instant.
const LOOK: Duration = Duration::from_secs(2);
/// Who runs a server should know so long before its certificate ends.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The largest file that is read: a chain of certificates has some 10 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What the listener shows clients of itself, and how it changes.
pub struct Certificates {
    files: Files,
    /// Lets clients that come back skip most of a handshake, also after a reload.
    tickets: Arc<dyn ProducesTickets>,
    current: RwLock<Current>,
    /// The files as they were when they were last read.
    read: Mutex<Stamps>,
    /// They are to be read again, whether they have changed or not.
    asked: Notify,
}

/// What is in force.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// When the server's own certificate begins and ends to be good.
    validity: Option<Validity>,
}

/// Why a certificate cannot be used. No text holds anything of the key.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The file is not there, or not for this process.
    #[error("tls.{0} = {1:?}: {2}")]
    File(&'static str, PathBuf, std::io::Error),
    /// It holds something else.
    #[error("tls.{0} = {1:?}: {2}")]
    Content(&'static str, PathBuf, &'static str),
    /// The two do not belong together, or are of a kind that is not understood.
    #[error("tls.key_file = {0:?} does not go with tls.certificate_file = {1:?}: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
    /// The cryptography does not work here.
    #[error("TLS: {0}")]
    Unusable(#[from] rustls::Error),
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// When a certificate is good.
type Validity = x509_cert::time::Validity<Raw>;

/// What tells two versions of a file apart; none of one that is not there.
type Stamp = Option<[i64; 6]>;
type Stamps = [Stamp; 2];

impl Certificates {
    /// Reads a chain of certificates, the server's first, and its private key, both as PEM.
    ///
    /// # Errors
    /// Says which file is wrong, and how.
    pub fn load(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, CertificateError> {
        let files = Files { certificate: certificate.into(), key: key.into() };
        let (read, tickets) = (files.stamps(), Ticketer::new()?);
        let current = files.read(&tickets)?;
        let (current, read) = (RwLock::new(current), Mutex::new(read));
        Ok(Self { files, tickets, current, read, asked: Notify::new() })
    }

    /// What an operator should mend, though it can be served.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        let rights = files::warning(&format!("tls.key_file = {key:?}"), key, Holds::ServerKey);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("tls.certificate_file = {certificate:?}");
        let times = match &self.current.read().validity {
            None => Some("its time of validity cannot be read".to_owned()),
            Some(validity) => outside(validity, now),
        };
        rights.into_iter().chain(times.map(|times| format!("{name}: {times}"))).collect()
    }

    /// What is in force.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    /// Has the files read again soon, by [`Certificates::watch`]. It does not wait.
    pub(crate) fn reload_soon(&self) {
        self.asked.notify_one();
    }

    /// Reads the files again. What is wrong with them is logged and counted, and changes nothing.
    fn reload(&self) {
        // Looked at first: what changes while it is read is read once more.
        *self.read.lock() = self.files.stamps();
        match self.files.read(&self.tickets) {
            Ok(current) => {
                *self.current.write() = current;
                self.tell_end();
                reloads("ok").increment(1);
                tracing::info!(file = ?self.files.certificate, "the certificate was read again");
                for warning in self.warnings() {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => {
                reloads("failed").increment(1);
                tracing::error!(%error, "the new certificate cannot be used; the old one stays");
            }
        }
    }

    /// Reloads when it is told to, and whenever the files have changed, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        // So that both are there to be seen from the start.
        for outcome in ["ok", "failed"] {
            reloads(outcome).increment(0);
        }
        self.tell_end();
        let mut before = *self.read.lock();
        loop {
            let asked = tokio::time::timeout(LOOK, self.asked.notified()).await.is_ok();
            let this = self.clone();
            let look = tokio::task::spawn_blocking(move || {
                let now = this.files.stamps();
                let changed = now != *this.read.lock();
                if asked || (changed && now == before) {
                    this.reload();
                }
                now
            });
            // It fails when the process ends, or has failed: the next look is a new one.
            before = look.await.unwrap_or_default();
        }
    }

    /// Tells the metrics when the certificate ends that is served.
    fn tell_end(&self) {
        if let Some(validity) = &self.current.read().validity {
            let end = validity.not_after.to_unix_duration();
            metrics::gauge!("tidewire_certificate_expiry_timestamp_seconds").set(end.as_secs_f64());
        }
    }
}

/// Names the files alone.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).ok().as_ref().map(stamp))
    }

    fn read(&self, tickets: &Arc<dyn ProducesTickets>) -> Result<Current, CertificateError> {
        let pem = contents("certificate_file", &self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let text = "there is no certificate in it (PEM, BEGIN CERTIFICATE)";
            CertificateError::Content("certificate_file", self.certificate.clone(), text)
        })?;
        // Not strict: whether clients take it is for rustls and them to say, only its times are asked for.
        let own = chain.first().and_then(|own| CertificateInner::<Raw>::from_der(own).ok());
        if own.as_ref().is_some_and(|own| own.tbs_certificate().version() == Version::V1) {
            let text = "the first certificate in it is of X.509 version 1, without the names that it is for: \
                        make one of version 3 with a subjectAltName";
            return Err(CertificateError::Content(
                "certificate_file",
                self.certificate.clone(),
                text,
            ));
        }
        let validity = own.map(|own| *own.tbs_certificate().validity());
        let pem = contents("key_file", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            let text = "there is no private key in it that can be read (PEM, BEGIN PRIVATE KEY, \
                        without a password)";
            CertificateError::Content("key_file", self.key.clone(), text)
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            CertificateError::Pair(self.key.clone(), self.certificate.clone(), error)
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = tickets.clone();
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Current { config: Arc::new(config), validity })
    }
}

fn contents(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    files::read(path, MAX_FILE_BYTES)
        .map_err(|error| CertificateError::File(key, path.to_owned(), error))
}

/// What is wrong with the time in which a certificate is good; nothing if it is good for long. The present is
/// told as the time since 1970.
fn outside(validity: &Validity, now: Duration) -> Option<String> {
    let (begin, end) = (&validity.not_before, &validity.not_after);
    if begin.to_unix_duration() > now {
        return Some(format!("clients refuse it before {begin}"));
    }
    let Some(left) = end.to_unix_duration().checked_sub(now) else {
        return Some(format!("it expired at {end}, and clients refuse it"));
    };
    let days = left.as_secs() / (24 * 60 * 60);
    (left < SOON).then(|| format!("it expires at {end}, in {days} days: renew it"))
}

/// A file that replaces another has another inode; one that is written over, another time or size.
fn stamp(file: &Metadata) -> [i64; 6] {
    [
        file.dev().cast_signed(),
        file.ino().cast_signed(),
        file.size().cast_signed(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
    ]
}

fn reloads(outcome: &'static str) -> Counter {
    metrics::counter!("tidewire_tls_reloads_total", "outcome" => outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::DateTime;

    #[test]
    fn a_certificate_is_good_between_two_times() {
        const DAY: u64 = 24 * 60 * 60;
        let time = |days: u64| {
            DateTime::from_unix_duration(Duration::from_secs(days * DAY)).unwrap().into()
        };
        let validity = Validity::new(time(100), time(190));
        let said = |days: u64| outside(&validity, Duration::from_secs(days * DAY + 1));
        assert_eq!(said(100), None);
        assert_eq!(said(175), None);
        assert_eq!(said(176).unwrap(), "it expires at 1970-07-10T00:00:00Z, in 13 days: renew it");
        assert_eq!(said(190).unwrap(), "it expired at 1970-07-10T00:00:00Z, and clients refuse it");
        assert_eq!(said(99).unwrap(), "clients refuse it before 1970-04-11T00:00:00Z");
    }
}
