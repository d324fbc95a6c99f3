//! `[tls]`: whether the clients' listener speaks TLS. As with the rest of the structure, the keys are
//! told in the walk.

use super::credentials::OneLine;
use super::setting::Maybe;
use super::walk::{Path, Visitor};

/// `[tls]`; both or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) certificate_file: Option<OneLine>,
    pub(crate) key_file: Option<OneLine>,
}

impl Tls {
    pub(super) fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["tls"]), "TLS on `listen` (1.2 and 1.3, HTTP/2 by ALPN). Not set: clients connect without, or a proxy in front speaks TLS. The files are read again at SIGHUP, and some seconds after they have changed; a pair that cannot be used is logged and changes nothing. `admin` never speaks TLS.");
        v.key("certificate_file", "A PEM file with the certificate of the node's name, and behind it those that lead to one that clients trust.", &mut Maybe(&mut self.certificate_file));
        v.key("key_file", "A PEM file with the certificate's private key, without a password. It should be readable by nobody else (mode 600 or 640).", &mut Maybe(&mut self.key_file));
    }

    /// Whether the listener speaks TLS.
    pub(crate) fn is_on(&self) -> bool {
        self.certificate_file.is_some()
    }
}
