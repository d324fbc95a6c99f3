//! TLS towards Redis: whom to trust, and what to show of oneself. Read once, at the start.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::settings::{Settings, SettingsError};

/// How to speak TLS with the server.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl Tls {
    /// Reads what the settings name. For the server of this name, which its certificate must have.
    pub(crate) fn new(settings: &Settings, host: &str) -> Result<Self, SettingsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| SettingsError::Url)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError::Tls(error.to_string()))?
            .with_root_certificates(roots(settings.ca_file.as_deref())?);
        let config = match (&settings.certificate_file, &settings.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let bytes = read(key)?;
                let bad = |why: &str| SettingsError::Tls(format!("{}: {why}", key.display()));
                let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
                    bad("there is no private key in it that can be read (PEM, without a password)")
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    bad(&format!("does not go with {}: {error}", certificate.display()))
                })?
            }
            _ => return Err(SettingsError::Tls("a certificate and its key go together".into())),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

/// Whom to trust: who signed what the file holds, else whom the system trusts.
fn roots(file: Option<&Path>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        // Single ones that cannot be read are passed over, as everybody does.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let why = "this system trusts nobody (there is no ca-certificates); name a file";
            return Err(SettingsError::Tls(why.into()));
        }
        return Ok(roots);
    };
    for certificate in certificates(file)? {
        let bad = |error| SettingsError::Tls(format!("{}: {error}", file.display()));
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let bytes = read(file)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| {
        SettingsError::Tls(format!("{}: there is no certificate in it (PEM)", file.display()))
    })
}

fn read(file: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(file).map_err(|error| SettingsError::Tls(format!("{}: {error}", file.display())))
}

/// Why there is no TLS, in words for an operator.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        // The second: an authority of the same name, with another key.
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => {
            "its certificate is signed by nobody that is trusted here (broker.redis_ca_file)".into()
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is not for this name".into(),
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "its certificate has expired".into(),
        // What rustls has no words for, by the names of webpki's errors.
        Some(Error::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is an authority's own (basicConstraints CA:TRUE, as `openssl req -x509` makes \
            it), which no server may show: sign one for the server with it, or make the self-signed one \
            with basicConstraints CA:FALSE"
                .into()
        }
        Some(Error::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string().contains("UnsupportedCertVersion") =>
        {
            "its certificate is of X.509 version 1, without the names that it is for: make one of version \
            3 with a subjectAltName"
                .into()
        }
        Some(Error::InvalidMessage(_)) => "it does not speak TLS there".into(),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
