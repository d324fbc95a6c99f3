//! The configuration as a whole: what is read, what is refused and in which words.

use std::ffi::OsString;
use std::time::Duration;

use super::*;

/// A file's text, variables and flags, read as `serve` reads them. The file's name in messages is
/// `tidewire.toml`.
fn load_from(file: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidewire.toml");
    std::fs::write(&path, file).unwrap();
    let environment = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let flags = Flags { config: Some(path.clone()), ..flags };
    let sources = Sources { flags, environment: environment.collect() };
    load(&sources)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "tidewire.toml"))
}

fn of_file(file: &str) -> Result<Config, String> {
    load_from(file, &[], Flags::default()).map(|loaded| loaded.config)
}

fn of_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
    load_from("", variables, Flags::default()).map(|loaded| loaded.config)
}

#[test]
fn nothing_given_is_the_documented_defaults() {
    let config = load(&Sources::default()).unwrap().config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.admin.to_string(), "127.0.0.1:8001");
    assert!(config.broker.url.is_none() && config.auth.mode.is_none());
    assert_eq!(config.limits.frame_bytes, 65_536);
    assert_eq!(config.limits.outbox_bytes, 1_048_576);
    assert_eq!(config.limits.outbox_messages, 1024);
    assert_eq!(config.limits.subscriptions_per_session, 128);
    assert_eq!(config.drain.time, Duration::from_secs(15));
    assert!(config.lane_count() >= 1);
}

/// One line of a file each, and what must stand in the message.
#[test]
fn what_is_wrong_is_told_with_key_value_bounds_and_place() {
    let cases = [
        (
            "revision = 0",
            "revision = 0: must be a whole number from 1 (from tidewire.toml, line 1)",
        ),
        ("revision = \"1\"", "revision = \"1\": must be a whole number from 1"),
        ("revision = 99999999999999999999", "revision = 99999999999999999999: must be"),
        (
            "\n\nlanes = 0",
            "lanes = 0: must be a whole number from 1 to 1024 (from tidewire.toml, line 3)",
        ),
        ("listen = 8000", "listen = 8000: must be a string: `host:port`"),
        ("listen = \"8000\"", "must be host:port"),
        ("listen = \"localhost:http\"", "must be host:port"),
        ("listen = \"127.0.0.1:+80\"", "must be host:port"),
        ("listen = \"127.0.0.1:65536\"", "must be host:port"),
        ("listen = \"127.0.0.256:80\"", "must be host:port"),
        ("listen = \"::1:8000\"", "must be host:port"),
        ("listen = \":8000\"", "must be host:port"),
        ("listen = \"http://localhost:80\"", "must be host:port"),
        ("admin_open = 1", "admin_open = 1: must be true or false"),
        ("drain.time = 15", "drain.time = 15: must be a time from 0s to 10m: write a unit: 15s"),
        ("drain.time = \"15\"", "write a unit: 15s"),
        ("drain.time = \"15 parsecs\"", "must be a time from 0s to 10m, written as in"),
        ("drain.time = \"1h\"", "drain.time = \"1h\": must be a time from 0s to 10m (from"),
        ("drain.time = 1.5", "drain.time = 1.5: must be a time"),
        ("limits.frame_bytes = \"64KB\"", "written as in 65536 or \"64KiB\""),
        ("limits.frame_bytes = 0", "must be a size from 1KiB to 16MiB"),
        ("limits.frame_bytes = \"999999999999GiB\"", "must be a size from 1KiB to 16MiB"),
        ("limits.connections = 0", "must be a whole number from 1 to 10000000"),
        ("broker.links = 17", "broker.links = 17: must be a whole number from 1 to 16"),
        ("broker.prefix = \"Tide\"", "must be 1 to 32 of a-z, 0-9, _ and -"),
        ("broker.wait_replicas = 17", "must be a whole number from 0 to 16"),
        ("broker.wait_replicas = -1", "must be a whole number from 0 to 16"),
        ("broker.wait_timeout = \"10ms\"", "must be a time from 250ms to 30s"),
        ("broker.after_restart = \"hope\"", "must be \"gap\" or \"trust\""),
        ("broker.url = \"http://redis\"", "broker.url: must be redis://"),
        ("broker.url = \"redis:\"", "broker.url: must be redis://"),
        ("broker.url = \"redis://h/0?x=1\"", "broker.url: must be redis://"),
        ("broker.url = \"redis://h:6379/3\"", "broker.url: only database 0 can be used"),
        ("broker.url = \"rediss://h/#insecure\"", "broker.url: must be redis://"),
        ("auth.mode = \"jwt\"", "auth.mode = \"jwt\": must be \"open\" or \"required\""),
        ("auth.api_keys = [{ key = \"hunter2\" }]", "auth.api_keys: each key must have a 'name'"),
        ("auth.api_keys = [{ name = \"a\" }]", "the key \"a\": give either 'key' or 'sha256'"),
        ("auth.api_keys = [{ name = \"a\", sha256 = \"x\" }]", "64 hex digits"),
        ("auth.api_keys = [{ name = \"a\", key = \"k\", kez = 1 }]", "no member \"kez\""),
        ("auth.api_keys = [{ name = \"a\", key = \"k\", verbs = [\"x\"] }]", "'verbs' may hold"),
        ("auth.api_keys = [\"a\"]", "each key must be a table"),
        ("auth.api_keys = 7", "auth.api_keys: must be `[{ name"),
        ("auth.personal_namespace = \"a:b\"", "what stands before the ':'"),
        ("auth.jwt.secret = 7", "auth.jwt.secret: must be a string, or a list of strings"),
        ("auth.jwt.secret = []", "must be a string, or a list"),
        ("auth.jwt.secret_algorithm = \"none\"", "must be \"HS256\", \"HS384\" or \"HS512\""),
        ("auth.jwt.jwks_url = \"http://id.example/keys\"", "must be https"),
        ("auth.jwt.jwks_url = \"https://u:p@id.example/keys\"", "without a user"),
        ("hooks.rpc = \"http://app.example/rpc\"", "must be https"),
        ("auth.jwt.leeway = \"1h\"", "must be a time from 0s to 5m"),
        ("namespaces.room.subscribe = \"all\"", "must be \"anyone\", \"user\""),
        ("namespaces.room.events = [\"tidewire:x\"]", "the gateway's own"),
        ("auth.allowed_origins = \"https://a.example\"", "must be a list of strings"),
        ("auth.allowed_origins = [1]", "must be a list of strings"),
        ("auth.allowed_origins = [\"*\"]", "wildcards are not possible"),
        ("auth.allowed_origins = [\"https://*.example\"]", "wildcards are not possible"),
        ("auth.allowed_origins = [\"https://a.example/\"]", "without a path"),
        ("auth.allowed_origins = [\"a.example\"]", "must be scheme://host[:port]"),
        ("auth.allowed_origins = [\"https://u@a.example\"]", "must be scheme://host[:port]"),
        ("limits.trusted_proxies = [\"proxy\"]", "must be such as 172.16.0.0/12"),
        ("limits.trusted_proxies = [\"0.0.0.0/0\"]", "the whole internet"),
        ("limits.trusted_proxies = [\"128.0.0.0/1\"]", "the whole internet"),
        ("limits.trusted_proxies = [\"::ffff:0.0.0.0/96\"]", "the whole internet"),
        ("limits.trusted_proxies = [\"2000::/3\"]", "the whole internet"),
        ("limits.forwarded_header = \"via\"", "must be \"x-forwarded-for\" or \"forwarded\""),
        ("limits.bytes_per_second = \"1\"", "must be a size from 1KiB"),
        ("log.level = \"loud\"", "log.level = \"loud\": must be off, error, warn"),
        ("log.level = \"info,tidewire_hub=loud\"", "must be off, error, warn"),
        ("log.format = \"xml\"", "must be \"auto\", \"text\" or \"json\""),
        ("namespaces.room.history_size = 10001", "must be a whole number from 0 to 10000"),
        ("namespaces.room.history_ttl = \"0s\"", "must be a time from 1s to"),
        ("namespaces.room.when_slow = \"drop\"", "must be \"close\" or \"drop_oldest\""),
        ("namespaces.room.conflate = \"11s\"", "must be a time from 0s to 10s"),
        (
            "namespaces.room.conflate = \"50ms\"",
            "only a live namespace can leave messages out, and namespaces.room.history_size is 100 \
            (the default)",
        ),
        ("[namespaces.\"a b\"]\nlog = true", "namespaces.\"a b\": is no name of a namespace"),
        ("[namespaces.\"a:b\"]", "namespaces.\"a:b\": is no name of a namespace"),
        ("namespaces.\"\".log = true", "namespaces.\"\": is no name of a namespace"),
    ];
    for (file, message) in cases {
        match of_file(file) {
            Ok(config) => panic!("{file}: taken as {config:?}"),
            Err(error) => assert!(error.contains(message), "{file}\n{error}\n{message}"),
        }
    }
}

#[test]
fn what_no_key_is_for_is_refused_with_a_guess() {
    let cases = [
        (
            "listne = \"127.0.0.1:1\"",
            "listne: there is no such key; did you mean listen? (from tidewire.toml, line 1)",
        ),
        ("links = 3", "links: there is no such key; did you mean broker.links?"),
        ("[limits]\nframe_size = 1", "did you mean limits.frame_bytes?"),
        ("[namespaces.room]\nhistorysize = 0", "did you mean namespaces.room.history_size?"),
        (
            "[brokers]\nurl = \"redis://h\"",
            "brokers.url: there is no such key; did you mean broker.url?",
        ),
        ("[zzz]", "zzz: there is no such key (docs/configuration.md lists them)"),
        ("[listen]\nhost = \"h\"", "listen.host: there is no such key"),
        ("drain = \"15s\"", "drain: is a table, not a value; its keys are drain.time"),
    ];
    for (file, message) in cases {
        let error = of_file(file).expect_err(file);
        assert!(error.contains(message), "{file}\n{error}");
    }
    let cases = [
        (
            ("TIDEWIRE_BROKER_URL", "redis://h"),
            "TIDEWIRE_BROKER_URL: there is no such key; did you mean TIDEWIRE_BROKER__URL (broker.url)?",
        ),
        (
            ("TIDEWIRE_LOG", "debug"),
            "TIDEWIRE_LOG: is a table, not a value; its keys are log.level, log.format",
        ),
        (("TIDEWIRE_QQQQ", "1"), "TIDEWIRE_QQQQ: there is no such key; every variable"),
        (("TIDEWIRE_NAMESPACES", "room"), "TIDEWIRE_NAMESPACES: there is no such key"),
        (("TIDEWIRE_LINKS", "x"), "did you mean TIDEWIRE_BROKER__LINKS (broker.links)?"),
    ];
    for (variable, message) in cases {
        let error = of_variables(&[variable]).expect_err(variable.0);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn contradictions_are_told_with_both_sides() {
    let cases = [
        (
            "listen = \"0.0.0.0:8000\"",
            "listen = 0.0.0.0:8000: without auth.mode and without credentials",
        ),
        ("listen = \"0.0.0.0:8000\"\n[auth]\nallowed_origins = []", "without auth.mode"),
        ("listen = \"gateway:8000\"", "must be a loopback address"),
        ("[auth]\nmode = \"required\"", "auth.mode = \"required\": nobody could log in"),
        ("hooks.rpc = \"http://app/rpc\"", "hooks.rpc = \"http://app/rpc\": needs hooks.secret"),
        ("hooks.secret = \"hunter2\"", "hooks.secret = …: must have at least 32 bytes"),
        ("[auth]\npersonal_namespace = \"default\"", "must be a namespace of its own"),
        (
            "[tls]\ncertificate_file = \"a.pem\"",
            "tls.certificate_file = \"a.pem\": needs tls.key_file",
        ),
        (
            "broker.redis_ca_file = \"ca.pem\"",
            "broker.redis_ca_file = \"ca.pem\": is for TLS to Redis",
        ),
        (
            "[broker]\nurl = \"rediss://h\"\nredis_key_file = \"a\"",
            "broker.redis_key_file = \"a\": needs broker.redis_certificate_file",
        ),
        ("tls.key_file = \"a.key\"", "tls.key_file = \"a.key\": needs tls.certificate_file"),
        ("admin = \"[::]:8001\"", "admin = [::]:8001: metrics and health are not for the public"),
        ("admin = \"127.0.0.1:8000\"", "must be another address than listen"),
        (
            "[limits]\nframe_bytes = \"1MiB\"",
            "limits.outbox_bytes = 1MiB: must be at least twice limits.frame_bytes, 2MiB (from tidewire.toml, line 2)",
        ),
        ("[limits]\noutbox_bytes = \"64KiB\"", "limits.frame_bytes, 128KiB (the default)"),
        ("[limits]\nbytes_per_second = \"1KiB\"", "must be at least limits.frame_bytes, 64KiB"),
        ("[heartbeat]\npong = \"25s\"", "must be less than heartbeat.websocket, 25s (the default)"),
        (
            "[broker]\nwait_replicas = 1\nwait_timeout = \"1001ms\"",
            "must be at most half of broker.publish_timeout, 2s",
        ),
        ("[broker]\necho_timeout = \"1s\"", "must be more than broker.echo_interval, 1s"),
        (
            "[namespaces.room]\nwhen_slow = \"drop_oldest\"",
            "namespaces.room.when_slow = \"drop_oldest\": must be \"close\" where messages are kept: \
            namespaces.room.history_size is 100 (the default)",
        ),
        (
            "namespaces.default.when_slow = \"drop_oldest\"\nnamespaces.default.history_size = 1",
            "namespaces.default.history_size is 1 (from tidewire.toml, line 2)",
        ),
    ];
    for (file, message) in cases {
        let error = of_file(file).expect_err(file);
        assert!(error.contains(message), "{file}\n{error}");
    }
}

#[test]
fn what_is_good_is_taken() {
    let config = of_file(
        r#"
        listen = "[::1]:9000"
        admin = "localhost:0"
        lanes = 3
        revision = 7
        [broker]
        url = "redis://app:s3cret@redis.internal:6380/0"
        linger = "1m 30s"
        [auth]
        allowed_origins = ["https://App.Example", "http://[::1]:5173", "tauri://localhost", "https://a.example:443"]
        [limits]
        frame_bytes = 131072
        outbox_bytes = "2 MiB"
        [log]
        level = "warn,tidewire_hub=debug"
        [namespaces.default]
        log = true
        [namespaces.room]
        [namespaces.cursors]
        history_size = 0
        when_slow = "drop_oldest"
        "#,
    )
    .unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:9000");
    assert_eq!((config.lane_count(), config.revision), (3, 7));
    assert_eq!(config.broker.linger, Duration::from_secs(90));
    let url = config.broker.url.as_ref().unwrap();
    assert_eq!(url.expose(), "redis://app:s3cret@redis.internal:6380/0");
    let origins: Vec<_> = config.auth.allowed_origins.iter().map(|o| o.as_str()).collect();
    let expected =
        ["https://app.example", "http://[::1]:5173", "tauri://localhost", "https://a.example"];
    assert_eq!(origins, expected);
    assert_eq!((config.limits.frame_bytes, config.limits.outbox_bytes), (131_072, 2_097_152));
    let rules = config.namespace_rules();
    assert_eq!(rules.names().collect::<Vec<_>>(), ["default", "cursors", "room"]);
    assert!(rules.rules(0).log && !rules.rules(2).log);
    assert!(rules.rules(1).may_drop() && !rules.rules(2).may_drop());

    assert!(of_file("listen = \"0.0.0.0:80\"\nauth.mode = \"open\"").is_ok());
    assert!(of_file("listen = \"0.0.0.0:80\"\nauth.jwt.secret = \"s\"").is_ok());
    assert!(of_file("listen = \"0.0.0.0:80\"\nauth.api_keys_file = \"keys.toml\"").is_ok());
    assert!(of_file("auth.jwt.jwks_url = \"http://keycloak:8080/certs\"").is_ok());
    assert!(of_file("admin = \"gateway:8001\"\nadmin_open = true").is_ok());
    assert!(of_file("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"").is_ok());
    assert!(of_file("listen = \"[::ffff:127.0.0.1]:1\"").is_ok());
}

#[test]
fn variables_are_read_by_the_types_of_their_keys() {
    let config = of_variables(&[
        ("TIDEWIRE_ADMIN_OPEN", "true"),
        ("TIDEWIRE_BROKER__LINKS", "4"),
        ("TIDEWIRE_AUTH__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("TIDEWIRE_LIMITS__FRAME_BYTES", "4096"),
        ("TIDEWIRE_LIMITS__OUTBOX_BYTES", "64KiB"),
        ("TIDEWIRE_NAMESPACES__ROOM__LOG", "true"),
        ("TIDEWIRE_NAMESPACES__A__B__HISTORY_SIZE", "0"),
        (
            "TIDEWIRE_AUTH__API_KEYS",
            "shop=the-key-of-the-shop, etl=sha256:\
            2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ),
        ("TIDEWIRE_AUTH__JWT__SECRET", "with, a comma"),
        ("TIDEWIRE_DRAIN__TIME", ""),
        ("tidewire_listen", "ignored: another name"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert!(config.admin_open);
    assert_eq!(config.broker.links, 4);
    assert_eq!(config.auth.allowed_origins.len(), 2);
    let names: Vec<_> = config.auth.api_keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!((names, config.auth.jwt.secret.len()), (vec!["shop", "etl"], 1));
    assert_eq!((config.limits.frame_bytes, config.limits.outbox_bytes), (4096, 65_536));
    assert_eq!(config.namespaces.keys().collect::<Vec<_>>(), ["a__b", "room"]);
    assert_eq!(config.drain.time, Duration::from_secs(15));

    let cases = [
        (
            ("TIDEWIRE_BROKER__LINKS", "four"),
            "broker.links = \"four\": must be a whole number from 1 to 16 (from environment variable TIDEWIRE_BROKER__LINKS)",
        ),
        (("TIDEWIRE_DRAIN__TIME", "15"), "write a unit: 15s"),
        (("TIDEWIRE_ADMIN_OPEN", "yes"), "must be true or false"),
        (("TIDEWIRE_AUTH__ALLOWED_ORIGINS", "https://a.example,b"), "\"b\": must be scheme://"),
    ];
    for (variable, message) in cases {
        let error = of_variables(&[variable]).expect_err(variable.0);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_mistake() {
    let set = of_variables(&[
        ("TIDEWIRE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEWIRE_SERVICE_PORT", "8000"),
        ("TIDEWIRE_SERVICE_PORT_HTTP", "8000"),
        ("TIDEWIRE_PORT", "tcp://10.0.0.1:8000"),
        ("TIDEWIRE_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("TIDEWIRE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TIDEWIRE_ADMIN_PORT_8001_TCP_PROTO", "tcp"),
    ]);
    assert!(set.is_ok(), "{set:?}");
    assert!(of_variables(&[("TIDEWIRE_PORT", "8000")]).is_err());
}

#[test]
fn later_sources_win_key_by_key() {
    let file = "listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n[broker]\nurl = \"redis://file\"\nlinks = 3\n";
    let variables = [("TIDEWIRE_ADMIN", "127.0.0.1:12"), ("TIDEWIRE_BROKER__URL", "redis://env")];
    let flags = Flags { redis: Some("redis://flag".to_owned()), ..Flags::default() };
    let loaded = load_from(file, &variables, flags).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.admin.to_string(), "127.0.0.1:12");
    assert_eq!(config.broker.url.as_ref().unwrap().expose(), "redis://flag");
    assert_eq!(config.broker.links, 3);
    let dump = loaded.to_toml();
    assert!(
        dump.contains("admin = \"127.0.0.1:12\"  # environment variable TIDEWIRE_ADMIN\n"),
        "{dump}"
    );
    assert!(dump.contains("url = \"redis://flag\"  # flag --redis\n"), "{dump}");

    let flags = Flags { listen: Some("nowhere".to_owned()), ..Flags::default() };
    let error = load_from(file, &[], flags).unwrap_err();
    assert!(error.contains("(from flag --listen)"), "{error}");
}

#[test]
fn the_file_of_the_variable_is_read_unless_a_flag_names_another() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (one, two) = (write("one", "lanes = 1"), write("two", "lanes = 2"));
    let environment = vec![("TIDEWIRE_CONFIG".into(), one.into_os_string())];
    let mut sources = Sources { flags: Flags::default(), environment };
    assert_eq!(load(&sources).unwrap().config.lanes, Some(1));
    sources.flags.config = Some(two);
    assert_eq!(load(&sources).unwrap().config.lanes, Some(2));
    sources.flags.config = Some(folder.path().join("three"));
    let error = load(&sources).unwrap_err().to_string();
    assert!(error.contains("three: cannot be read: "), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let error = of_file("lanes = 0\nlisten = 1\nfoo = 1\n").unwrap_err();
    assert!(error.starts_with("configuration: 3 problems\n  - "), "{error}");
    let one = of_file("lanes = 0").unwrap_err();
    assert!(one.starts_with("configuration: lanes = 0: "), "{one}");
}

#[test]
fn a_file_that_is_no_toml_is_told_with_line_and_column() {
    let error = of_file("lanes = 1\nlisten = =\n").unwrap_err();
    assert!(error.contains("tidewire.toml: is no TOML: line 2, column 10: "), "{error}");
    let twice = of_file("lanes = 1\nlanes = 2\n").unwrap_err();
    assert!(twice.contains("line 2"), "{twice}");
}

/// A password must show nowhere: not in dumps, not in `Debug`, not in the message about a bad URL
/// or about a line that is no TOML.
#[test]
fn secrets_never_show() {
    let loaded =
        load_from("broker.url = \"redis://:hunter2@h:6379\"", &[], Flags::default()).unwrap();
    let dump = loaded.to_toml();
    assert!(dump.contains("url = \"redis://:REDACTED@h:6379\""), "{dump}");
    let keys = "auth.api_keys = [{ name = \"shop\", key = \"hunter2\", verbs = [\"publish\"] }]\n\
        auth.jwt.secret = [\"hunter2\", \"hunter2\"]";
    let auth = load_from(keys, &[], Flags::default()).unwrap();
    let redacted = auth.to_toml();
    assert!(
        redacted.contains(
            "api_keys = [{ name = \"shop\", key = \"REDACTED\", verbs = [\"publish\"] }]"
        ),
        "{redacted}"
    );
    assert!(redacted.contains("secret = [\"REDACTED\", \"REDACTED\"]"), "{redacted}");
    let debug = format!("{auth:?}");
    let shown = [dump, format!("{loaded:?}"), format!("{:?}", loaded.config), redacted, debug];
    let broken = [
        "broker.url = \"redis://:hunter2@h:6379/5\"",
        "broker.url = \"redis//:hunter2@h\"",
        "broker.url = \"rediss://:hunter2@h/5\"",
        "broker.url = [\"redis://:hunter2@h\"]",
        "broker.url = \"redis://:hunter2@h",
        "broker.url = redis://:hunter2@h",
        "auth.api_keys = [{ key = \"hunter2\" }]",
        "auth.api_keys = [\"hunter2\"]",
        "auth.api_keys = [{ name = \"a\", sha256 = \"hunter2\" }]",
        "auth.api_keys = [{ name = \"a\", key = \"hunter2\", x = \"hunter2\" }]",
        "auth.api_keys = \"hunter2\"",
        "auth.jwt.secret = { a = \"hunter2\" }",
        "auth.jwt.secret = [[\"hunter2\"]]",
    ];
    let errors = broken.map(|file| of_file(file).unwrap_err());
    let flags = Flags { redis: Some("hunter2".to_owned()), ..Flags::default() };
    let flag = load_from("", &[], flags).unwrap_err();
    let misspelt = of_variables(&[("TIDEWIRE_REDIS", "redis://:hunter2@h")]).unwrap_err();
    let keys = of_variables(&[("TIDEWIRE_AUTH__API_KEYS", "hunter2")]).unwrap_err();
    for text in shown.iter().chain(&errors).chain([&flag, &misspelt, &keys]) {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_dump_reads_as_the_same_configuration() {
    let file = "revision = 9\nlanes = 2\n[namespaces.\"ü.x\"]\nlog = true\n[limits]\noutbox_bytes = 200000\n";
    let first = load_from(file, &[], Flags::default()).unwrap().config;
    let dump = dump::dump(&first, &BTreeMap::new());
    let second = load_from(&dump, &[], Flags::default()).unwrap().config;
    assert_eq!(dump::dump(&second, &BTreeMap::new()), dump);
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}

/// The page is made from the structure; with `UPDATE=1` in the environment this test writes it.
#[test]
fn the_page_is_not_behind() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is behind: run this test with UPDATE=1");
}

/// The example of the page is a configuration that can be served.
#[test]
fn the_example_of_the_page_is_good() {
    let page = reference();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    assert!(of_file(example.unwrap()).is_ok());
}

#[tokio::test]
async fn names_are_resolved_and_localhost_stays_here() {
    let config = of_file("listen = \"localhost:0\"").unwrap();
    assert!(config.listen.is_loopback());
    assert!(config.listen.resolve().await.unwrap().ip().is_loopback());
    let config = of_file("listen = \"[::1]:5\"").unwrap();
    assert_eq!(config.listen.resolve().await.unwrap(), "[::1]:5".parse().unwrap());
}

/// What holds by default where logging in is required, and not in open mode.
#[test]
fn limits_of_clients_are_for_who_logs_in() {
    let open = of_file("").unwrap();
    assert_eq!((open.address_limits().connections, open.rates()), (None, (0, 0)));
    let required = of_file("auth.jwt.secret = \"s\"").unwrap();
    let limits = required.address_limits();
    assert_eq!((limits.connections, limits.public_only), (Some(100), true));
    assert_eq!(required.rates(), (100, 1 << 20));
    let given = of_file(
        "[limits]\nconnections_per_address = 7\ntrusted_proxies = [\"172.16.0.0/12\", \"::1\"]\n\
        forwarded_header = \"forwarded\"\nframes_per_second = 0\nbytes_per_second = \"2MiB\"",
    )
    .unwrap();
    let limits = given.address_limits();
    assert_eq!((limits.connections, limits.public_only), (Some(7), false));
    assert_eq!((limits.trusted_proxies.len(), given.rates()), (2, (0, 2 << 20)));
    let mapped = of_file("limits.trusted_proxies = [\"::ffff:10.1.2.3/104\"]").unwrap();
    let [network] = mapped.address_limits().trusted_proxies[..] else { panic!() };
    assert_eq!(network.to_string(), "10.0.0.0/8");
}
