//! From the configuration to the listener's certificate. `serve` and `check` call it, so that both
//! find the same faults.

use std::sync::Arc;

use tidewire_gateway::{CertificateError, Certificates};

use crate::config::Config;

/// Reads the files, if there is to be TLS.
pub(crate) fn build(config: &Config) -> Result<Option<Arc<Certificates>>, CertificateError> {
    let files = (&config.tls.certificate_file, &config.tls.key_file);
    let (Some(certificate), Some(key)) = files else { return Ok(None) };
    Certificates::load(certificate.as_str(), key.as_str()).map(|it| Some(Arc::new(it)))
}
