//! [`StoreUrl`]: the parts of a store's URL. Nothing of a URL is quoted in an error: it may hold a secret by mistake.

#[cfg(any(feature = "file", feature = "ssm", feature = "secretsmanager"))]
pub(super) use parsed::StoreUrl;

/// The part before the first colon, in lower case (RFC 3986, section 3.1).
pub(super) fn scheme(url: &str) -> Result<String, &'static str> {
    let (scheme, _) = url.split_once(':').ok_or("the URL has no scheme: write one such as memory: or file:///PATH")?;
    Ok(scheme.to_ascii_lowercase())
}

#[cfg(any(feature = "file", feature = "ssm", feature = "secretsmanager"))]
mod parsed {
    /// Path and parameters, as they are written.
    #[derive(Debug, PartialEq, Eq)]
    pub(in super::super) struct StoreUrl<'a> {
        pub(in super::super) path: &'a str,
        pub(in super::super) parameters: Vec<(&'a str, &'a str)>,
    }

    impl<'a> StoreUrl<'a> {
        /// Takes a URL apart: `SCHEME:PATH?NAME=VALUE&...` or `SCHEME://PATH?...`.
        pub(in super::super) fn parse(url: &'a str) -> Result<Self, &'static str> {
            let (_, rest) = url.split_once(':').unwrap_or_default();
            if rest.contains('#') {
                return Err("the URL has a fragment (#...): remove it, or write # as %23");
            }
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let path = match path.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(authority) if authority.split('/').next().is_some_and(|host| host.contains('@')) => {
                    return Err("the URL has user info (...@): remove it, credentials don't belong in a URL");
                }
                Some(_) => return Err("the URL has a host: write three slashes, as in file:///PATH"),
                None => path,
            };
            let pairs = query.split('&').filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once('=').ok_or("a parameter has no value: write NAME=VALUE"));
            let parameters = pairs.collect::<Result<Vec<_>, _>>()?;
            let repeated = |(number, (name, _)): (usize, &(&str, &str))| {
                parameters.iter().take(number).any(|(earlier, _)| earlier == name)
            };
            if parameters.iter().enumerate().any(repeated) {
                return Err("a parameter is given twice: give it once");
            }
            Ok(Self { path, parameters })
        }
    }
}

#[cfg(all(test, feature = "file"))]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = StoreUrl::parse("file:///a/b%20c?x=1&y=/p=q").unwrap();
        assert_eq!(url, StoreUrl { path: "/a/b%20c", parameters: vec![("x", "1"), ("y", "/p=q")] });
        assert_eq!(StoreUrl::parse("file:").unwrap(), StoreUrl { path: "", parameters: vec![] });
    }

    #[test]
    fn what_has_no_place_in_a_stores_url_is_refused() {
        for url in
            ["file:///a#b", "file://user:pw@host/a", "file://host/a", "file://", "file:///a?x", "file:///a?x=1&x=2"]
        {
            assert!(StoreUrl::parse(url).is_err(), "{url}");
        }
        assert!(scheme("keys.db").is_err());
    }
}
