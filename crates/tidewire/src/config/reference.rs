//! The page `docs/configuration.md`, made from the structure itself.

use super::model::Config;
use super::setting::Setting;
use super::walk::{Path, Visitor};

const INTRODUCTION: &str = r#"<!-- Made by `tidewire config-reference`; a test compares. Change crates/tidewire/src/config/model.rs instead. -->

# Configuration

Nothing needs to be configured to try Tidewire: `tidewire` alone serves on 127.0.0.1:8000 with the
embedded broker. What is to differ comes from these sources; a later one replaces an earlier one,
key by key:

1. the defaults below;
2. one TOML file, named by `--config PATH` or else by `TIDEWIRE_CONFIG`. No file is read that was
   not named;
3. environment variables: `TIDEWIRE_`, then the key in upper case, with `__` between table and
   key: `TIDEWIRE_BROKER__URL`. Lists are separated by commas. An empty variable counts as not
   set. Names of namespaces are lower-cased;
4. the flags `--listen`, `--admin`, `--redis` (`broker.url`), `--tls-certificate` and `--tls-key`
   (`tls.certificate_file`, `tls.key_file`).

`tidewire check` reads all this exactly as `tidewire serve` does. It prints what is in force and
where it came from, or else what is wrong, with the key and what is allowed, and exits with 1. A key
that does not exist, a value out of bounds and a contradiction each end the start in the same way,
and so does a variable that begins with `TIDEWIRE_` and names no key (but for those that Kubernetes
sets for a service called `tidewire`).

Times are written with a unit: `"500ms"`, `"15s"`, `"5m"`, `"1h 30m"`. Sizes are a number of bytes
or have a unit: `65536`, `"64KiB"`, `"1MiB"`.

An example, for nodes behind a proxy on a private network:

```toml
listen = "0.0.0.0:8000"
admin = "0.0.0.0:8001"
admin_open = true

[broker]
url = "redis://redis:6379"

[auth]
allowed_origins = ["https://app.example"]
api_keys = [{ name = "shop", key = "the output of openssl rand -hex 32" }]
personal_namespace = "user"

[auth.jwt]
secret = "the output of another openssl rand -hex 32"

[namespaces.news]
subscribe = "user"
publish = "nobody"
```
"#;

/// The whole page.
pub(crate) fn reference() -> String {
    let mut page = Page { table: Path::default(), out: INTRODUCTION.to_owned() };
    Config::default().walk(&mut page);
    page.out
}

struct Page {
    table: Path,
    out: String,
}

impl Visitor for Page {
    fn table(&mut self, path: Path, about: &'static str) {
        let title = if path.is_root() { "Top".to_owned() } else { format!("`[{path}]`") };
        self.out.push_str(&format!(
            "\n## {title}\n\n{about}\n\n\
            | key | variable | type | default | allowed | what it does |\n\
            | --- | --- | --- | --- | --- | --- |\n"
        ));
        self.table = path;
    }

    fn key(&mut self, name: &'static str, about: &'static str, setting: &mut dyn Setting) {
        let default = setting.show().map_or_else(|| "not set".to_owned(), |v| format!("`{v}`"));
        let cells = [
            format!("`{name}`"),
            format!("`{}`", self.table.child(name).variable()),
            setting.kind().to_owned(),
            default,
            setting.allowed(),
            about.to_owned(),
        ];
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        self.out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }

    fn more_namespaces(&mut self) -> Vec<String> {
        vec!["NAME".to_owned()]
    }
}
