//! `--version`, usage, and the commands about the configuration.

use crate::{outcome, run, tidewire};

#[test]
fn version_and_help() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out.trim()), (Some(0), concat!("tidewire ", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["serve", "token", "publish", "tail", "check", "health", "--config", "--redis"] {
        assert!(out.contains(word), "{word}\n{out}");
    }
    assert!(!out.contains("config-reference"), "{out}");
}

#[test]
fn wrong_usage_is_2() {
    let cases: [&[&str]; 6] = [
        &["launch"],
        &["--lisen", "127.0.0.1:0"],
        &["publish"],
        &["tail", "news", "--url", "127.0.0.1:8000"],
        &["tail", ".."],
        &["--config", "x", "check"],
    ];
    for arguments in cases {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?} {err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn check_prints_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    std::fs::write(&path, "[broker]\nlinks = 4\n").unwrap();
    let mut command = tidewire(&["check", "--config", path.to_str().unwrap()]);
    command.env("TIDEWIRE_BROKER__URL", "redis://:hunter2@redis:6379");
    let (code, out, err) = outcome(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("listen = \"127.0.0.1:8000\"\n"), "{out}");
    assert!(out.contains(&format!("links = 4  # {}, line 2\n", path.display())), "{out}");
    assert!(out.contains("url = \"redis://:REDACTED@redis:6379\""), "{out}");

    // What it prints is a configuration again.
    let again = folder.path().join("again.toml");
    std::fs::write(&again, &out).unwrap();
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&again, own).unwrap();
    let (code, _, err) = run(&["check", "--config", again.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn check_says_what_is_wrong() {
    let mut command = tidewire(&["check"]);
    command.env("TIDEWIRE_BROKER__LINKS", "0").env("TIDEWIRE_BROKR__URL", "redis://h");
    let (code, out, err) = outcome(&command.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let expected = "tidewire: configuration: 2 problems\n  \
        - broker.links = \"0\": must be a whole number from 1 to 16 (from environment variable TIDEWIRE_BROKER__LINKS)\n  \
        - TIDEWIRE_BROKR__URL: there is no such key; did you mean TIDEWIRE_BROKER__URL (broker.url)?\n";
    assert_eq!(err, expected);
}

/// `serve` refuses what `check` refuses, also when no command is named, before it opens anything.
#[test]
fn serve_refuses_what_check_refuses() {
    let cases: [&[&str]; 3] = [
        &["--listen", "0.0.0.0:0"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["check", "--listen", "0.0.0.0:0"],
    ];
    for arguments in cases {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(
            err.starts_with("tidewire: configuration: listen = 0.0.0.0:0: without auth.mode"),
            "{err}"
        );
        assert!(err.ends_with("(from flag --listen)\n"), "{err}");
    }
}

#[test]
fn the_page_can_be_printed() {
    let (code, out, _) = run(&["config-reference"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("<!-- Made by `tidewire config-reference`"), "{out}");
    // With it, the test beside the structure is writing the page right now.
    if std::env::var_os("UPDATE").is_none() {
        // Read now: what was compiled in may be older than the page.
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        assert_eq!(out, std::fs::read_to_string(page).unwrap());
    }
}

#[test]
fn a_token_needs_a_secret_that_is_good() {
    let make = |secret: &str, more: &[&str]| {
        let mut command = tidewire(&[&["token", "--sub", "alice"], more].concat());
        command.env("TIDEWIRE_AUTH__JWT__SECRET", secret);
        outcome(&command.output().unwrap())
    };
    let (code, out, err) = make("", &[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("auth.jwt.secret, which is not set"), "{err}");
    let (code, _, err) = make("hunter2", &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("HS256 needs at least 32 bytes") && !err.contains("hunter2"), "{err}");
    let good = "0123456789abcdef0123456789abcdef";
    let (code, out, _) = make(good, &["--subscribe", "room:*", "--info", r#"{"a":1}"#]);
    assert_eq!((code, out.trim().split('.').count()), (Some(0), 3));
    for wrong in [["--subscribe", "a*b"], ["--info", "{"], ["--ttl", "soon"], ["--channel", "a b"]]
    {
        let (code, out, err) = make(good, &wrong);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{wrong:?} {err}");
    }
}

/// What `serve` would refuse because of keys, `check` refuses, and shows none.
#[test]
fn check_reads_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = file("keys.toml", "api_keys = [{ name = \"a\", key = \"hunter2hunter2hunter2\" }]");
    let broken = file("broken.toml", "api_keys = [{ name = \"a\", key = \"hunter2\"");
    let pem = file("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let check = |name: &str, value: &str| {
        let mut command = tidewire(&["check"]);
        command.env(name, value);
        outcome(&command.output().unwrap())
    };
    let may = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&keys, mode).unwrap();
        check("TIDEWIRE_AUTH__API_KEYS_FILE", &keys)
    };
    let (code, out, err) = may(0o640);
    assert!(code == Some(0) && !out.contains("hunter2") && err.is_empty(), "{out}{err}");
    // Whoever can write there can make a key of their own.
    for mode in [0o644, 0o602] {
        let (code, _, err) = may(mode);
        assert!(code == Some(0) && err.contains(&format!("mode {mode:o}")), "{err}");
    }
    // So can who writes the configuration, or another public key; and its secrets are to be read there.
    let secret = "0123456789abcdef0123456789abcdef";
    let open = file("open.toml", "[heartbeat]\nsse = \"10s\"");
    let closed = file("closed.toml", &format!("auth.jwt.secret = \"{secret}\""));
    let redis = file("redis.toml", "broker.url = \"redis://a:hunter2@h\"");
    let public = file(
        "public.pem",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n",
    );
    let (config, pem_key) = ("TIDEWIRE_CONFIG", "TIDEWIRE_AUTH__JWT__PUBLIC_KEY_FILE");
    for (name, path, mode, warns) in [
        (config, &open, 0o644, None),
        (config, &open, 0o602, Some("write it")),
        (config, &closed, 0o640, None),
        (config, &closed, 0o644, Some("read its secrets (mode 644)")),
        (config, &redis, 0o646, Some("read its secrets, and write it")),
        (pem_key, &public, 0o644, None),
        (pem_key, &public, 0o622, Some("write it")),
    ] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
        let (code, _, err) = check(name, path);
        assert_eq!(code, Some(0), "{path}: {err}");
        match warns {
            Some(warning) => assert!(err.contains(warning) && err.contains(&**path), "{err}"),
            None => assert_eq!(err, "", "{path}"),
        }
    }
    let (code, out, _) =
        check("TIDEWIRE_AUTH__JWT__JWKS_URL", "https://id.example/jwks?code=hunter2");
    assert!(code == Some(0) && out.contains("https://id.example/jwks?REDACTED"), "{out}");
    for (name, value, part) in [
        ("TIDEWIRE_AUTH__API_KEYS_FILE", &*broken, "is no TOML"),
        ("TIDEWIRE_AUTH__API_KEYS_FILE", "/nowhere", "auth.api_keys_file = \"/nowhere\""),
        ("TIDEWIRE_AUTH__API_KEYS", "a=hunter2", "the key number 1 is too short"),
        // A key with a comma.
        (
            "TIDEWIRE_AUTH__API_KEYS",
            "a=0123456789abcdef,hunter2=x",
            "the key number 2 is too short",
        ),
        ("TIDEWIRE_AUTH__API_KEYS", "hunter2=sha256:1", "the key number 1: a SHA-256 has"),
        (
            "TIDEWIRE_AUTH__API_KEYS",
            "a=hunter2hunter2hunter2,b=hunter2hunter2hunter2",
            "the keys 'a' and 'b' are the same",
        ),
        (
            "TIDEWIRE_AUTH__JWT__PUBLIC_KEY_FILE",
            "-----BEGIN PRIVATE KEY-----\nhunter2",
            "must be a text of one line",
        ),
        ("TIDEWIRE_AUTH__JWT__JWKS_URL", "https://u:hunter2@id.example/jwks", "without a user"),
        ("TIDEWIRE_AUTH__JWT__SECRET", "hunter2", "auth.jwt.secret: the secret is too short"),
        ("TIDEWIRE_AUTH__JWT__PUBLIC_KEY_FILE", &*pem, "it holds a private key"),
    ] {
        let (code, out, err) = check(name, value);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name}");
        assert!(err.contains(part) && !err.contains("hunter2"), "{err}");
    }
}
