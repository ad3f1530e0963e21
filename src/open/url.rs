//! [`UrlParts`]: the parts of a store's URL. No error quotes the URL, which may contain a secret by
//! mistake.

/// Returns the scheme of a URL, the part before the first colon, in lower case (RFC 3986, section
/// 3.1).
pub(super) fn scheme(url: &str) -> Result<String, &'static str> {
    let (scheme, _) = url.split_once(':').ok_or("the URL has no scheme; write one, such as memory: or file:///PATH")?;
    Ok(scheme.to_ascii_lowercase())
}

/// Reports whether a text is a valid scheme (RFC 3986, section 3.1).
pub(super) fn is_scheme(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_valid)
}

/// The path and the parameters of a URL, still percent-encoded.
#[cfg(any(feature = "file", feature = "postgres", feature = "ssm", feature = "secretsmanager"))]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UrlParts<'a> {
    pub(super) path: &'a str,
    pub(super) parameters: Vec<(&'a str, &'a str)>,
}

#[cfg(any(feature = "file", feature = "postgres", feature = "ssm", feature = "secretsmanager"))]
impl<'a> UrlParts<'a> {
    /// Splits a URL without a host: `SCHEME:PATH?NAME=VALUE&...` or `SCHEME:///PATH?...`.
    #[cfg(any(feature = "file", feature = "ssm", feature = "secretsmanager"))]
    pub(super) fn parse(url: &'a str) -> Result<Self, &'static str> {
        let (host, parts) = Self::split(url)?;
        match host {
            None => Ok(parts),
            Some("") if !parts.path.is_empty() => Ok(parts),
            Some(_) => Err("the URL has a host; write three slashes, as in file:///PATH"),
        }
    }

    /// Splits a URL with a host and perhaps a port, which may be empty:
    /// `SCHEME://HOST:PORT/PATH?NAME=VALUE&...`.
    #[cfg(feature = "postgres")]
    pub(super) fn parse_with_host(url: &'a str) -> Result<(&'a str, Self), &'static str> {
        let (host, parts) = Self::split(url)?;
        Ok((host.ok_or("the URL has no host; write two slashes before it, as in postgres://HOST/DB")?, parts))
    }

    fn split(url: &'a str) -> Result<(Option<&'a str>, Self), &'static str> {
        let (_, rest) = url.split_once(':').unwrap_or_default();
        if rest.contains('#') {
            return Err("the URL has a fragment (#...); remove it, or write # as %23");
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => (Some(""), path),
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                let (host, path) = authority.split_at(end);
                (Some(host), path)
            }
            None => (None, path),
        };
        if host.is_some_and(|host| host.contains('@')) {
            return Err("the URL has user info (...@); remove it, because credentials don't belong in a URL");
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').ok_or("a parameter has no value; write NAME=VALUE"));
        let parameters = pairs.collect::<Result<Vec<_>, _>>()?;
        let is_repeated = |(index, (name, _)): (usize, &(&str, &str))| {
            parameters.iter().take(index).any(|(earlier, _)| earlier == name)
        };
        if parameters.iter().enumerate().any(is_repeated) {
            return Err("a parameter is given twice; give it once");
        }
        Ok((host, Self { path, parameters }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "file")]
    #[test]
    fn a_url_is_split() {
        let url = UrlParts::parse("file:///a/b%20c?x=1&y=/p=q").unwrap();
        assert_eq!(url, UrlParts { path: "/a/b%20c", parameters: vec![("x", "1"), ("y", "/p=q")] });
        assert_eq!(UrlParts::parse("file:").unwrap(), UrlParts { path: "", parameters: vec![] });
    }

    #[cfg(feature = "file")]
    #[test]
    fn parts_that_a_store_url_must_not_have_are_refused() {
        for url in
            ["file:///a#b", "file://user:pw@host/a", "file://host/a", "file://", "file:///a?x", "file:///a?x=1&x=2"]
        {
            assert!(UrlParts::parse(url).is_err(), "{url}");
        }
        assert!(scheme("keys.db").is_err());
    }

    #[test]
    fn a_scheme_is_a_letter_and_more() {
        assert!(["redis", "R", "a1+b-c.d"].into_iter().all(is_scheme));
        assert!(!["", "1a", "+a", "a:", "a/b", "a b", "ä", "aä"].into_iter().any(is_scheme));
    }
}
