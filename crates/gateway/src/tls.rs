//! The certificate of the listener: read at the start, and again when its files change.
//!
//! Connections take what is in force when they come ([`Certificates::config`]) and keep it; the binary
//! loads it and tells it to reload at SIGHUP. A pair that cannot be used replaces nothing.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use thiserror::Error;

/// How often the files are looked at. They count as changed when two looks in a row find them so,
/// because certificate and key are not written in one instant.
const LOOK: Duration = Duration::from_secs(2);
/// The bits by which others than a file's owner and group may read and write it.
const OTHERS: u32 = 0o006;
/// The largest file that is read: a chain of certificates has some 10 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What the listener shows clients of itself, and how it changes.
pub struct Certificates {
    files: Files,
    /// Lets clients that come back skip most of a handshake, also after a reload.
    tickets: Arc<dyn ProducesTickets>,
    current: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last read.
    read: Mutex<Stamps>,
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
        Ok(Self { files, tickets, current: RwLock::new(current), read: Mutex::new(read) })
    }

    /// What an operator should mend, though it can be served.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let key = &self.files.key;
        let mode = std::fs::metadata(key).ok()?.permissions().mode() & 0o777;
        (mode & OTHERS != 0).then(|| {
            format!(
                "tls.key_file = {key:?}: every user of this machine may read or write it \
                 (mode {mode:03o}), and so speak in this server's name; make it 600 or 640"
            )
        })
    }

    /// What is in force.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }

    /// Reads the files again. What is wrong with them is logged and counted, and changes nothing.
    pub(crate) fn reload(&self) {
        // Looked at first: what changes while it is read is read once more.
        *self.read.lock() = self.files.stamps();
        match self.files.read(&self.tickets) {
            Ok(config) => {
                *self.current.write() = config;
                reloads("ok").increment(1);
                tracing::info!(file = ?self.files.certificate, "the certificate was read again");
                if let Some(warning) = self.warning() {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => {
                reloads("failed").increment(1);
                tracing::error!(%error, "the new certificate cannot be used; the old one stays");
            }
        }
    }

    /// Reloads whenever the files have changed, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        // So that both are there to be seen from the start.
        for outcome in ["ok", "failed"] {
            reloads(outcome).increment(0);
        }
        let mut before = *self.read.lock();
        loop {
            tokio::time::sleep(LOOK).await;
            let this = self.clone();
            let look = tokio::task::spawn_blocking(move || {
                let now = this.files.stamps();
                let changed = now != *this.read.lock();
                if changed && now == before {
                    this.reload();
                }
                now
            });
            // It fails when the process ends, or has failed: the next look is a new one.
            before = look.await.unwrap_or_default();
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

    fn read(
        &self,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let pem = contents("certificate_file", &self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let text = "there is no certificate in it (PEM, BEGIN CERTIFICATE)";
            CertificateError::Content("certificate_file", self.certificate.clone(), text)
        })?;
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
        Ok(Arc::new(config))
    }
}

fn contents(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |error| CertificateError::File(key, path.to_owned(), error);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(CertificateError::Content(key, path.to_owned(), "it is over 1 MiB"));
    }
    std::fs::read(path).map_err(failed)
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
