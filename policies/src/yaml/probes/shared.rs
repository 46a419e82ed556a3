//! Settings that several kinds of probes have.

use crate::{
    probe::{TlsSettings, pattern},
    yaml::{
        fields::{Fields, Keys},
        text::quoted,
        tree::Content,
        value::Value,
    },
};

/// Longest text that is sent or looked for, in bytes: a request, not a document.
const LINES_BYTES_MAX: usize = 4096;

/// A port.
pub(super) fn port(value: &Value<'_>) -> Option<u16> {
    value.number(1..=u16::MAX)
}

/// Text that may have several lines: what is sent to a service, or looked for in what it says.
pub(super) fn lines(value: &Value<'_>) -> Option<String> {
    match &value.node.content {
        Content::Scalar { text, .. } if text.len() > LINES_BYTES_MAX => {
            value.wrong(format!("{} is longer than {LINES_BYTES_MAX} bytes", quoted(value.name)), "shorten it")
        }
        Content::Scalar { text, .. } if !text.is_empty() && !value.node.is_null() => Some(text.clone()),
        _ => value.unexpected("text", "give a value, or leave the key out; in double quotes `\\r\\n` ends a line"),
    }
}

/// A pattern that can be built.
pub(super) fn pattern(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match pattern::build(text) {
        Ok(_) => Some(text.to_owned()),
        Err(why) => value.wrong(
            format!("the pattern {} cannot be used: {why}", quoted(text)),
            "write a regular expression without look-around and back-references, in single quotes",
        ),
    }
}

const TLS: Keys = Keys {
    known: &["ca_file", "certificate_file", "key_file", "server_name", "verify"],
    later: &[],
    renamed: &[("insecure", "write `verify: false`"), ("sni", "write `server_name`"), ("ca", "write `ca_file`")],
};

/// How to speak TLS.
pub(super) fn tls(value: &Value<'_>) -> Option<TlsSettings> {
    tls_of(value, &value.fields(&TLS)?)
}

/// The same, where other settings may stand beside them: of `value`, whose fields these are.
pub(super) fn tls_of(value: &Value<'_>, fields: &Fields<'_>) -> Option<TlsSettings> {
    let ca_file = fields.optional("ca_file", Value::absolute_path);
    let certificate_file = fields.optional("certificate_file", Value::absolute_path);
    let key_file = fields.optional("key_file", Value::absolute_path);
    let server_name = fields.optional("server_name", name);
    let verify = fields.or("verify", true, Value::boolean);
    let settings = TlsSettings {
        ca_file: ca_file?,
        certificate_file: certificate_file?,
        key_file: key_file?,
        server_name: server_name?,
        verify: verify?,
    };
    consistent(value, settings)
}

/// Settings that fit together.
fn consistent(value: &Value<'_>, settings: TlsSettings) -> Option<TlsSettings> {
    if settings.certificate_file.is_some() != settings.key_file.is_some() {
        return value.wrong(
            "`certificate_file` and `key_file` belong together, and one of them is missing",
            "give both, or neither",
        );
    }
    if !settings.verify && settings.ca_file.is_some() {
        return value.wrong("`ca_file` has no use while `verify` is false", "leave one of them out");
    }
    Some(settings)
}

/// Longest name of a host (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// The name of a host, or an address.
pub(super) fn name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let address = text.parse::<std::net::IpAddr>().is_ok();
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let fine = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(inner)
    };
    if address || (text.len() <= NAME_BYTES_MAX && labels.into_iter().all(fine)) {
        return Some(text.to_owned());
    }
    value.unexpected("the name of a host", "write it like `www.example.org`")
}
