//! Reads the kind `http`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use super::shared::{lines, pattern, tls};
use crate::{
    model::{HttpProbe, Probe, Statuses},
    probe::{ADDRESS, HttpVersion, Method, TlsSettings},
    yaml::{
        fields::{Fields, Keys},
        text::quoted,
        tree::Content,
        value::Value,
    },
};

const HTTP: Keys = Keys {
    known: &[
        "url",
        "status",
        "body",
        "body_matches",
        "json",
        "method",
        "headers",
        "header_files",
        "send",
        "redirects",
        "version",
        "connect_to",
        "tls",
    ],
    later: &[],
    renamed: &[
        ("address", "write `connect_to: \"{address}\"`"),
        ("follow_redirects", "write `redirects: 3`, the most that are followed"),
        ("data", "write `send`"),
    ],
};

/// Most redirects that are followed: browsers give up at 20, and a service that is asked each second should need few.
const REDIRECTS_MAX: u32 = 10;
/// Most ranges of statuses, headers, and places in a JSON body, for one probe.
const ITEMS_MAX: usize = 32;

pub(super) fn read(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&HTTP)?;
    let url = fields.need("url", "url: \"http://{address}:8080/\"", |v| v.url(true));
    let status = fields.or("status", Statuses::only(200), statuses);
    let body = fields.optional("body", lines);
    let body_matches = fields.optional("body_matches", pattern);
    let json = fields.or("json", BTreeMap::new(), json);
    let method = fields.or("method", Method::Get, method);
    let headers = fields.or("headers", BTreeMap::new(), headers);
    let header_files = fields.or("header_files", BTreeMap::new(), header_files);
    let send = fields.optional("send", lines);
    let redirects = fields.or("redirects", 0, |v| v.number(0..=REDIRECTS_MAX));
    let version =
        fields.or("version", HttpVersion::One, |v| v.one_of(&[("1.1", HttpVersion::One), ("2", HttpVersion::Two)]));
    let connect_to = fields.optional("connect_to", connect_to);
    let tls = fields.or("tls", TlsSettings::default(), tls);
    let probe = HttpProbe {
        url: url?,
        status: status?,
        body: body?,
        body_matches: body_matches?,
        json: json?,
        method: method?,
        headers: headers?,
        header_files: header_files?,
        send: send?,
        redirects: redirects?,
        version: version?,
        connect_to: connect_to?,
        tls: tls?,
    };
    together(&fields, &probe).map(|()| Probe::Http(Box::new(probe)))
}

/// What fits only with other settings.
fn together(fields: &Fields<'_>, probe: &HttpProbe) -> Option<()> {
    let wrong = |key: &str, what: &str, hint: &str| {
        let at = fields.section(key)?;
        at.wrong::<()>(what.to_owned(), hint)
    };
    if fields.has("tls") && !probe.url.starts_with("https://") {
        return wrong(
            "tls",
            "`tls` has no use for a URL that begins with `http://`",
            "write `https://`, or leave it out",
        );
    }
    let reads = probe.body.is_some() || probe.body_matches.is_some() || !probe.json.is_empty();
    if probe.method == Method::Head && reads {
        return wrong("method", "the answer to HEAD has no body, which this probe looks at", "write `method: GET`");
    }
    if probe.send.is_some() && !matches!(probe.method, Method::Post | Method::Put) {
        return wrong("send", "`send` needs `method: POST` or `method: PUT`", "add one of them, or leave `send` out");
    }
    Some(())
}

fn method(value: &Value<'_>) -> Option<Method> {
    let all = [Method::Get, Method::Head, Method::Options, Method::Post, Method::Put];
    value.one_of(&all.map(|method| (method.word(), method)))
}

fn statuses(value: &Value<'_>) -> Option<Statuses> {
    let items = match &value.node.content {
        Content::List(_) => value.list("status: [200, 204, 300-399]")?,
        _ => vec![*value],
    };
    if items.is_empty() || items.len() > ITEMS_MAX {
        return value
            .unexpected(&format!("1 to {ITEMS_MAX} statuses"), "write `status: 200` or `status: [200-299, 304]`");
    }
    let ranges: Vec<_> = items.iter().map(range).collect();
    Some(Statuses(ranges.into_iter().collect::<Option<_>>()?))
}

fn range(value: &Value<'_>) -> Option<(u16, u16)> {
    let text = value.text()?;
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (number(least), number(most)) {
        (Some(least), Some(most)) if least <= most => Some((least, most)),
        _ => {
            value.unexpected("a status or a range of them, from 100 to 599", "write `200`, `200-299` or a list of such")
        }
    }
}

/// What must stand at which places of a JSON body.
fn json(value: &Value<'_>) -> Option<BTreeMap<String, serde_json::Value>> {
    let items = few(value)?;
    let read = items.iter().map(|item| {
        if !item.name.starts_with('/') {
            let what = format!("{} is not a JSON pointer (RFC 6901)", quoted(item.name));
            item.findings.hint(item.at, what, "begin it with `/`: \"/status\", \"/nodes/0/role\"");
            return None;
        }
        Some((item.name.to_owned(), scalar(item)?))
    });
    // All are read, so that all mistakes are shown.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn scalar(value: &Value<'_>) -> Option<serde_json::Value> {
    let Content::Scalar { text, plain } = &value.node.content else {
        return value.unexpected("a single value", "write text, a number, `true`, `false` or `null`");
    };
    // Unquoted, `3`, `true` and `null` are what JSON takes them for; anything else is text.
    let typed = plain.then(|| serde_json::from_str(text).ok()).flatten();
    Some(typed.unwrap_or_else(|| serde_json::Value::String(text.clone())))
}

/// Headers that this program sets itself, and would set wrongly if told otherwise.
const OURS: [&str; 4] = ["connection", "content-length", "transfer-encoding", "upgrade"];
/// Headers whose values are secrets.
const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

fn headers(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let read = few(value)?.into_iter().map(|item| {
        let name = header_name(&item)?;
        if SECRET.contains(&name.to_ascii_lowercase().as_str()) {
            let what = format!("the header {} is a secret, and policies are shown and replicated", quoted(&name));
            item.findings.hint(item.at, what, format!("write `header_files: {{ {name}: /etc/holdfast/token }}`"));
            return None;
        }
        Some((name, item.text()?.to_owned()))
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

fn header_files(value: &Value<'_>) -> Option<BTreeMap<String, PathBuf>> {
    let read = few(value)?.into_iter().map(|item| Some((header_name(&item)?, item.absolute_path()?)));
    read.collect::<Vec<_>>().into_iter().collect()
}

fn few<'t>(value: &Value<'t>) -> Option<Vec<Value<'t>>> {
    let items = value.map()?;
    if items.len() > ITEMS_MAX {
        return value.wrong(format!("{} has more than {ITEMS_MAX} entries", quoted(value.name)), "leave some out");
    }
    Some(items)
}

/// Letters of a header's name (RFC 9110, 5.6.2).
fn header_name(value: &Value<'_>) -> Option<String> {
    let name = value.name;
    let fine = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let what = if name.is_empty() || name.len() > 100 || !name.chars().all(fine) {
        format!("{} is not the name of a header", quoted(name))
    } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        format!("the header {} is set by Holdfast itself", quoted(name))
    } else {
        return Some(name.to_owned());
    };
    value.findings.hint(value.at, what, "write it like `X-Probe: holdfast`");
    None
}

fn connect_to(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let filled = text.replace("[{address}]", ADDRESS).replace(ADDRESS, "192.0.2.1");
    let fine =
        filled.parse::<SocketAddr>().is_ok_and(|place| place.port() > 0) || filled.parse::<std::net::IpAddr>().is_ok();
    if !fine {
        return value.unexpected(
            "an address, perhaps with a port",
            "write `{address}`, `10.0.0.5`, `10.0.0.5:8443` or `[fd00::5]:8443`",
        );
    }
    Some(text.to_owned())
}
