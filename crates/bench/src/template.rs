//! A publish as bytes, made once; for each message only its marker is patched in.

use anyhow::{Context, ensure};

use crate::frames::client_frame;
use crate::marker::{LENGTH, Marker, PREFIX};
use crate::target::{Scheme, Target};

/// All bytes of one publish.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    marker: usize,
}

impl Template {
    /// The publish that this target takes. `body` has `{payload}` where a text of `length` bytes
    /// goes, and may have `{channel}`; without one it is what Tidewire takes.
    pub(crate) fn new(
        target: &Target,
        body: Option<&str>,
        channel: &str,
        length: usize,
    ) -> anyhow::Result<Self> {
        ensure!(length >= LENGTH, "a payload has at least {LENGTH} bytes: the marker");
        let body = body.unwrap_or(match target.scheme {
            Scheme::WebSocket => {
                r#"{"type":"publish","channel":"{channel}","payload":"{payload}"}"#
            }
            Scheme::Http | Scheme::Redis => r#"{"payload":"{payload}"}"#,
        });
        ensure!(body.contains("{payload}"), "the body has no {{payload}}");
        let mut marker = [0; LENGTH];
        Marker { sent: 0, number: 0 }.write(&mut marker);
        let payload = format!("{}{:x>2$}", String::from_utf8_lossy(&marker), "", length - LENGTH);
        let body = body.replace("{channel}", channel).replacen("{payload}", &payload, 1);
        let bytes = wrap(target, &body);
        let marker = memchr::memmem::find(&bytes, PREFIX).context("the marker is gone")?;
        Ok(Self { bytes, marker })
    }

    /// Appends the publish of this message.
    pub(crate) fn write(&mut self, marker: Marker, out: &mut Vec<u8>) {
        if let Some(place) = self.bytes[self.marker..].first_chunk_mut() {
            marker.write(place);
        }
        out.extend_from_slice(&self.bytes);
    }
}

fn wrap(target: &Target, body: &str) -> Vec<u8> {
    match target.scheme {
        Scheme::WebSocket => client_frame(0x81, body.as_bytes()),
        Scheme::Http => format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            target.path,
            target.authority,
            body.len()
        )
        .into_bytes(),
        Scheme::Redis => {
            let channel = &target.path[1..];
            let (name, length) = (channel.len(), body.len());
            format!("*3\r\n$7\r\nPUBLISH\r\n${name}\r\n{channel}\r\n${length}\r\n{body}\r\n")
                .into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_patched_in() {
        let target = Target::parse("redis://127.0.0.1/tidewire:{channel}", "a").unwrap();
        let mut template = Template::new(&target, None, "a", 32).unwrap();
        let mut out = Vec::new();
        template.write(Marker { sent: 0xab, number: 0xc }, &mut out);
        let expected = "*3\r\n$7\r\nPUBLISH\r\n$10\r\ntidewire:a\r\n$46\r\n\
                        {\"payload\":\"twb:00000000000000ab.0000000cxxx\"}\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn lengths_count_the_whole_body() {
        let target = Target::parse("http://127.0.0.1:1/{channel}", "a").unwrap();
        let body = Some(r#"["{channel}","{payload}"]"#);
        let mut out = Vec::new();
        let mut template = Template::new(&target, body, "a", 40).unwrap();
        template.write(Marker { sent: 1, number: 1 }, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        assert!(body.starts_with(r#"["a","twb:"#), "{text}");
        assert!(Template::new(&target, Some("{}"), "a", 40).is_err());
        assert!(Template::new(&target, None, "a", LENGTH - 1).is_err());
    }
}
