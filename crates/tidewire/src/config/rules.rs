//! What keys must be to each other: contradictions that no key shows alone.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use tidewire_protocol::{Hook, WhenSlow};

use super::credentials::{NamespaceName, OneLine};
use super::error::{ConfigError, Problem};
use super::model::Config;
use super::origin::Origin;
use super::setting::{show_size, show_time};
use super::values::{AuthMode, BrokerUrl};
use super::walk::Path;

/// Finds every contradiction.
pub(super) fn check(config: &Config, origins: &BTreeMap<Path, Origin>) -> Result<(), ConfigError> {
    let mut rules = Rules { origins, problems: Vec::new() };
    rules.exposure(config);
    rules.tls(config);
    rules.hooks(config);
    rules.bounds(config);
    rules.namespaces(config);
    ConfigError::unless_empty(rules.problems)
}

/// The shortest secret of hooks: as long as the hash that it is for.
const HOOK_SECRET_BYTES: usize = 32;

struct Rules<'a> {
    origins: &'a BTreeMap<Path, Origin>,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    /// Nothing is reachable from outside unless somebody wrote down that it is to be.
    fn exposure(&mut self, config: &Config) {
        let (listen, admin) = (&config.listen, &config.admin);
        self.forbid(
            !listen.is_loopback() && config.auth.mode.is_none() && !config.auth.has_credentials(),
            "listen",
            listen.to_string(),
            "without auth.mode and without credentials under [auth] everyone who can connect may \
            do everything, so it must be a loopback address; give auth.jwt.secret, another key or \
            auth.api_keys, or if that is what you want, write mode = \"open\" under [auth] \
            (TIDEWIRE_AUTH__MODE=open)",
        );
        self.forbid(
            config.auth.mode == Some(AuthMode::Required) && !config.auth.has_credentials(),
            "auth.mode",
            "\"required\"".to_owned(),
            "nobody could log in: give auth.jwt.secret, auth.jwt.public_key_file, \
            auth.jwt.jwks_url, auth.api_keys or auth.api_keys_file",
        );
        let personal = config.auth.personal_namespace.as_ref().map(NamespaceName::as_str);
        self.forbid(
            personal == Some("default"),
            "auth.personal_namespace",
            "\"default\"".to_owned(),
            "must be a namespace of its own: the rules of 'default' are those of all others",
        );
        self.forbid(
            !admin.is_loopback() && !config.admin_open,
            "admin",
            admin.to_string(),
            "metrics and health are not for the public, so it must be a loopback address; if \
            only operators reach this network, write admin_open = true (TIDEWIRE_ADMIN_OPEN=true)",
        );
        self.forbid(
            listen == admin && listen.port() != 0,
            "admin",
            admin.to_string(),
            "must be another address than listen",
        );
    }

    /// A certificate is of no use without its key, and files for TLS are none without TLS.
    fn tls(&mut self, config: &Config) {
        let (tls, broker) = (&config.tls, &config.broker);
        let redis = ["broker.redis_certificate_file", "broker.redis_key_file"];
        self.pair(["tls.certificate_file", "tls.key_file"], [&tls.certificate_file, &tls.key_file]);
        self.pair(redis, [&broker.redis_certificate_file, &broker.redis_key_file]);
        let secure = broker.url.as_ref().is_some_and(BrokerUrl::is_secure);
        let files = [
            ("broker.redis_ca_file", &broker.redis_ca_file),
            (redis[0], &broker.redis_certificate_file),
            (redis[1], &broker.redis_key_file),
        ];
        for (key, file) in files {
            let text = "is for TLS to Redis: write broker.url = \"rediss://…\"";
            self.forbid(file.is_some() && !secure, key, shown(file), text);
        }
    }

    /// Both or none.
    fn pair(&mut self, keys: [&str; 2], files: [&Option<OneLine>; 2]) {
        for (this, other) in [(0, 1), (1, 0)] {
            let text = format!("needs {}: a certificate and its private key", keys[other]);
            let alone = files[this].is_some() && files[other].is_none();
            self.forbid(alone, keys[this], shown(files[this]), &text);
        }
    }

    /// Whoever reaches the application's hooks must not be able to ask in the gateway's name.
    fn hooks(&mut self, config: &Config) {
        let hooks = &config.hooks;
        let first = Hook::ALL.into_iter().zip(&hooks.urls).find(|(_, url)| url.is_some());
        if let (Some((hook, Some(url))), true) = (first, hooks.secret.is_empty()) {
            let key = format!("hooks.{}", hook.as_str());
            self.forbid(
                true,
                &key,
                format!("\"{}\"", url.as_str()),
                "needs hooks.secret, with \
                which requests are signed, so that the application knows whose they are \
                (openssl rand -hex 32)",
            );
        }
        let short = hooks.secret.iter().any(|it| it.expose_secret().len() < HOOK_SECRET_BYTES);
        self.forbid(
            short,
            "hooks.secret",
            "…".to_owned(),
            "must have at least 32 bytes \
            (openssl rand -hex 32)",
        );
    }

    /// Times and sizes that make sense only together.
    fn bounds(&mut self, config: &Config) {
        let (limits, heartbeat, broker) = (&config.limits, &config.heartbeat, &config.broker);
        // The largest message must fit, also when it is bytes, which base64 makes a third longer.
        let least = 2 * limits.frame_bytes;
        let text = format!(
            "must be at least twice limits.frame_bytes, {} ({})",
            show_size(least),
            self.whence("limits.frame_bytes")
        );
        let given = show_size(limits.outbox_bytes);
        self.forbid(limits.outbox_bytes < least, "limits.outbox_bytes", given, &text);

        if let Some(bytes) = limits.bytes_per_second {
            let text = format!(
                "must be at least limits.frame_bytes, {} ({}), or its largest frame never passes",
                show_size(limits.frame_bytes),
                self.whence("limits.frame_bytes")
            );
            let wrong = bytes < limits.frame_bytes;
            self.forbid(wrong, "limits.bytes_per_second", show_size(bytes), &text);
        }

        let text = format!(
            "must be less than heartbeat.websocket, {} ({}), or the next ping goes out before \
            the last one is judged",
            show_time(heartbeat.websocket),
            self.whence("heartbeat.websocket")
        );
        let given = show_time(heartbeat.pong);
        self.forbid(heartbeat.pong >= heartbeat.websocket, "heartbeat.pong", given, &text);

        let text = format!(
            "must be at most half of broker.publish_timeout, {} ({}), or publishes that replicas \
            confirm come too late",
            show_time(broker.publish_timeout),
            self.whence("broker.publish_timeout")
        );
        let given = show_time(broker.wait_timeout);
        self.forbid(
            broker.wait_replicas > 0 && 2 * broker.wait_timeout > broker.publish_timeout,
            "broker.wait_timeout",
            given,
            &text,
        );

        let text = format!(
            "must be more than broker.echo_interval, {} ({}), or a healthy connection counts as \
            dead",
            show_time(broker.echo_interval),
            self.whence("broker.echo_interval")
        );
        let given = show_time(broker.echo_timeout);
        self.forbid(
            broker.echo_timeout <= broker.echo_interval,
            "broker.echo_timeout",
            given,
            &text,
        );
    }

    /// Nothing of a stored channel is lost to who can resume; what a live one leaves out is.
    fn namespaces(&mut self, config: &Config) {
        let stored = config.namespaces.iter().filter(|(_, rules)| rules.history_size > 0);
        for (name, namespace) in stored {
            let size = format!("namespaces.{name}.history_size");
            let kept = format!("{size} is {} ({})", namespace.history_size, self.whence(&size));
            let text = format!(
                "must be \"close\" where messages are kept: {kept}, and whoever is closed there \
                resumes and loses nothing; for live channels, which may lose messages, write \
                history_size = 0"
            );
            let drops = namespace.when_slow == WhenSlow::DropOldest;
            let key = format!("namespaces.{name}.when_slow");
            self.forbid(drops, &key, "\"drop_oldest\"".to_owned(), &text);
            let text = format!(
                "only a live namespace can leave messages out, and {kept}; set it to 0, or \
                conflate to 0s"
            );
            let key = format!("namespaces.{name}.conflate");
            let given = show_time(namespace.conflate);
            self.forbid(!namespace.conflate.is_zero(), &key, given, &text);
        }
    }

    fn forbid(&mut self, wrong: bool, key: &str, given: String, text: &str) {
        if wrong {
            self.problems.push(Problem {
                subject: key.to_owned(),
                given: Some(given),
                text: text.to_owned(),
                origin: self.origins.get(&path(key)).cloned(),
            });
        }
    }

    fn whence(&self, key: &str) -> String {
        let origin = self.origins.get(&path(key));
        origin.map_or_else(|| "the default".to_owned(), |origin| format!("from {origin}"))
    }
}

fn shown(file: &Option<OneLine>) -> String {
    file.as_ref().map_or_else(String::new, |file| format!("{:?}", file.as_str()))
}

fn path(key: &str) -> Path {
    Path::new(key.split('.'))
}
