//! A certificate authority of the test's own, made with the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Issues certificates for `localhost` and `127.0.0.1`. Its files go with it.
pub struct Authority {
    folder: tempfile::TempDir,
}

/// The files of a certificate, as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate alone.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8), for nobody else to read.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When there is no `openssl`.
    #[must_use]
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let (certificate, key) = (this.certificate(), this.path("ca.key"));
        openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
                .map(Path::new)
                .into_iter()
                .chain(["-nodes", "-days", "90", "-subj", "/CN=test authority"].map(Path::new))
                .chain(["-keyout".as_ref(), &*key, "-out".as_ref(), &*certificate])
                .collect::<Vec<_>>(),
        );
        this
    }

    /// Its own certificate, which clients are to trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Its own certificate with its key, as a server should not show it.
    #[must_use]
    pub fn itself(&self) -> Certificate {
        Certificate { certificate: self.certificate(), key: self.path("ca.key") }
    }

    /// Issues one of X.509 version 1, which has no names but the common one.
    ///
    /// # Panics
    /// When there is no `openssl`.
    #[must_use]
    pub fn issue_of_version_1(&self, name: &str) -> Certificate {
        let (certificate, key) =
            (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let (ca, ca_key, request) = (self.certificate(), self.path("ca.key"), self.path("request"));
        let subject = format!("/CN={name}");
        openssl(
            &["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
                .map(Path::new)
                .into_iter()
                .chain(["-nodes", "-subj", &subject].map(Path::new))
                .chain(["-keyout".as_ref(), &*key, "-out".as_ref(), &*request])
                .collect::<Vec<_>>(),
        );
        openssl(
            &["x509", "-req", "-days", "1", "-set_serial", "1", "-in"]
                .map(Path::new)
                .into_iter()
                .chain([&*request, "-CA".as_ref(), &*ca, "-CAkey".as_ref(), &*ca_key])
                .chain(["-out".as_ref(), &*certificate])
                .collect::<Vec<_>>(),
        );
        Certificate { certificate, key }
    }

    /// Issues a certificate for this machine; `name` tells several apart, and is its common name.
    ///
    /// # Panics
    /// When there is no `openssl`.
    #[must_use]
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_for(name, "DNS:localhost,IP:127.0.0.1")
    }

    /// Issues one for other names, written as openssl has them.
    ///
    /// # Panics
    /// When there is no `openssl`.
    #[must_use]
    pub fn issue_for(&self, name: &str, names: &str) -> Certificate {
        self.issue_until(name, names, 90)
    }

    /// Issues one for this machine that is good for so many days.
    ///
    /// # Panics
    /// When there is no `openssl`.
    #[must_use]
    pub fn issue_for_days(&self, name: &str, days: u32) -> Certificate {
        self.issue_until(name, "DNS:localhost,IP:127.0.0.1", days)
    }

    fn issue_until(&self, name: &str, names: &str, days: u32) -> Certificate {
        let days = days.to_string();
        let names = format!("subjectAltName={names}");
        let certificate = self.path(&format!("{name}.pem"));
        let key = self.path(&format!("{name}.key"));
        let (ca, ca_key) = (self.certificate(), self.path("ca.key"));
        let subject = format!("/CN={name}");
        openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
                .map(Path::new)
                .into_iter()
                .chain(["-nodes", "-days", &days, "-subj", &subject].map(Path::new))
                .chain(["-addext", &names].map(Path::new))
                .chain(["-addext", "basicConstraints=critical,CA:FALSE"].map(Path::new))
                .chain(["-CA".as_ref(), &*ca, "-CAkey".as_ref(), &*ca_key])
                .chain(["-keyout".as_ref(), &*key, "-out".as_ref(), &*certificate])
                .collect::<Vec<_>>(),
        );
        Certificate { certificate, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// Puts this certificate and its key in the place of another's, each file replaced in one step.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn replace(&self, other: &Self) {
        for (from, to) in [(&self.certificate, &other.certificate), (&self.key, &other.key)] {
            let beside = to.with_extension("new");
            std::fs::copy(from, &beside).expect("a copy");
            std::fs::rename(&beside, to).expect("its place");
        }
    }
}

fn openssl(arguments: &[&Path]) {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().expect("these tests need openssl on the PATH");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
