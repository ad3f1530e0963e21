//! Checks of settings at which the SDK would panic, or which it would report as network failures.
//! Each returns a text that follows the setting's name and says what is wrong and what to do. It
//! does not quote the value.

/// The longest label of a host name (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Checks a region, which becomes a label of a host name.
pub(crate) fn region_problem(region: &str) -> Option<&'static str> {
    let is_label_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = region.len() <= LONGEST_LABEL
        && region.bytes().all(is_label_byte)
        && !region.starts_with('-')
        && !region.ends_with('-');
    match region {
        "" => Some("is empty: set it to a region such as eu-west-1, or unset it"),
        _ if is_label => None,
        _ => Some("is not a region: write lower-case letters, digits and hyphens, as in eu-west-1"),
    }
}

/// Checks the URL of an endpoint: `http` or `https`, a host, and optionally a port and a path.
pub(crate) fn endpoint_problem(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("is empty: set it to a URL such as https://HOST, or unset it");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte)) {
        return Some("contains a blank or a character that is not allowed in a URL: remove it");
    }
    let scheme_and_rest = url.split_once("://");
    let Some((_, rest)) = scheme_and_rest
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
    else {
        return Some("has no scheme: begin it with https:// or http://");
    };
    if rest.contains(['?', '#']) {
        return Some("contains a query or a fragment: remove it");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Some("contains user info (...@): remove it, because credentials do not belong in a URL");
    }
    let (host, port) = host_and_port(authority);
    if host.is_none() {
        return Some("has no valid host: write one after ://");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Some("has no valid port: write a number up to 65535 after the host");
    }
    None
}

/// Splits an authority without user info. The host is `None` if it is not valid.
fn host_and_port(authority: &str) -> (Option<&str>, Option<&str>) {
    let is_name = |host: &&str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return (None, None) };
        let address = Some(address).filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        return (if port.is_empty() || port.starts_with(':') { address } else { None }, port.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) => (Some(host).filter(is_name), Some(port)),
        None => (Some(authority).filter(is_name), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_labels() {
        for region in ["eu-west-1", "us-gov-west-1", "eusc-de-east-1", "local"] {
            assert_eq!(region_problem(region), None, "{region}");
        }
        for region in
            ["", " ", "eu west-1", "eu-west-1\n", "eu_west_1", "EU-WEST-1", "-a", "a-", "a.b", &"a".repeat(64)]
        {
            assert!(region_problem(region).is_some(), "{region}");
        }
    }

    #[test]
    fn endpoints_have_a_scheme_and_a_host() {
        for url in [
            "https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com",
            "http://localhost:4566",
            "HTTPS://[::1]:80/prefix",
            "http://127.0.0.1",
            "http://local_stack:4566/",
        ] {
            assert_eq!(endpoint_problem(url), None, "{url}");
        }
        for (url, word) in [
            ("", "empty"),
            (" ", "blank"),
            ("http://a b", "blank"),
            ("http://a\n", "blank"),
            ("localhost:4566", "scheme"),
            ("ftp://host", "scheme"),
            ("://host", "scheme"),
            ("http://", "host"),
            ("http:///path", "host"),
            ("http://[::1", "host"),
            ("http://[::1]x", "host"),
            ("http://me:secret@host", "user info"),
            ("http://host:port", "port"),
            ("http://host:", "port"),
            ("http://host:65536", "port"),
            ("http://host/?x=1", "query"),
            ("http://host/#x", "fragment"),
        ] {
            assert!(endpoint_problem(url).is_some_and(|text| text.contains(word)), "{url}");
        }
    }
}
