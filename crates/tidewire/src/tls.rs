//! From the configuration to the listener's certificate, and what is to be mended about that and about the key
//! towards Redis. `serve` and `check` call it, so that both find the same faults.

use std::sync::Arc;

use tidewire_gateway::files::{self, Holds};
use tidewire_gateway::{CertificateError, Certificates};

use crate::config::Config;

/// Reads the files, if there is to be TLS.
pub(crate) fn build(config: &Config) -> Result<Option<Arc<Certificates>>, CertificateError> {
    let files = (&config.tls.certificate_file, &config.tls.key_file);
    let (Some(certificate), Some(key)) = files else { return Ok(None) };
    Certificates::load(certificate.as_str(), key.as_str()).map(|it| Some(Arc::new(it)))
}

/// What an operator should mend, though it can be served.
pub(crate) fn warnings(config: &Config, certificates: Option<&Certificates>) -> Vec<String> {
    let mut warnings = certificates.map(Certificates::warnings).unwrap_or_default();
    if let Some(path) = &config.broker.redis_key_file {
        let name = format!("broker.redis_key_file = {:?}", path.as_str());
        warnings.extend(files::warning(&name, path.as_str(), Holds::ServerKey));
    }
    warnings
}
