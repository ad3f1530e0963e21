//! What Parameter Store allows in names, checked on the template so that no user is the first to find out.

use std::error::Error as StdError;
use std::fmt;

use keystead_core::{InvalidNameTemplate, NameTemplate};

/// The longest name with the ARN before it, in characters (`PutParameter`, `Name`).
const LONGEST: usize = 1011;

/// What is set aside for the ARN: it is longer in some partitions and regions than in others.
const ARN: usize = 70;

/// The most levels of a hierarchy.
const MOST_LEVELS: usize = 15;

/// The template of this path, if every id's name is one that Parameter Store takes.
pub(crate) fn template(path: &str) -> Result<NameTemplate, InvalidParameterTemplate> {
    let template = NameTemplate::new(path).map_err(InvalidParameterTemplate::Template)?;
    if path.contains(['+', '=', '@']) {
        return Err(InvalidParameterTemplate::Character);
    }
    let Some(relative) = path.strip_prefix('/') else {
        return Err(InvalidParameterTemplate::NoLeadingSlash);
    };
    let lower = relative.to_ascii_lowercase();
    if lower.starts_with("aws") || lower.starts_with("ssm") {
        return Err(InvalidParameterTemplate::Reserved);
    }
    if path.matches('/').count() > MOST_LEVELS {
        return Err(InvalidParameterTemplate::TooManyLevels);
    }
    if template.max_name_len() > LONGEST - ARN {
        return Err(InvalidParameterTemplate::TooLong);
    }
    Ok(template)
}

/// The path under which all names are, and whether they lie deeper than directly below it.
pub(crate) fn listed_path(template: &NameTemplate) -> (&str, bool) {
    let path = template.prefix().rsplit_once('/').map_or("", |(path, _)| path);
    (path, template.suffix().contains('/'))
}

/// Returns a name that no id has, for a read that only proves that reading is possible.
pub(crate) fn probe_name(template: &NameTemplate) -> String {
    format!("{}--{}", template.prefix(), template.suffix())
}

/// Why a path is no template of parameter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidParameterTemplate {
    /// It is no template at all.
    Template(InvalidNameTemplate),
    /// It has a `+`, `=` or `@`.
    Character,
    /// It does not begin with a slash.
    NoLeadingSlash,
    /// It begins with `aws` or `ssm`, in any case.
    Reserved,
    /// It has more than 15 levels.
    TooManyLevels,
    /// The name of the longest id would have more than 941 characters (1,011 less 70 for the ARN).
    TooLong,
}

impl fmt::Display for InvalidParameterTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template(e) => return e.fmt(f),
            Self::Character => "a parameter's name has no +, = or @: remove them",
            Self::NoLeadingSlash => "a parameter's path begins with a slash: write it as /app/user-keys/%s",
            Self::Reserved => "a parameter's path must not begin with aws or ssm: begin with another word",
            Self::TooManyLevels => "a parameter's name has at most 15 levels: shorten the path",
            Self::TooLong => "the longest id would get a name of more than 941 characters: shorten the path",
        })
    }
}

impl StdError for InvalidParameterTemplate {}

#[cfg(test)]
mod tests {
    use keystead_core::KeyId;

    use super::*;

    #[test]
    fn the_longest_name_of_an_accepted_path_fits_with_its_arn() {
        let fits = format!("/{}/%s", "a".repeat(LONGEST - ARN - 386 - 2));
        assert_eq!(template(&fits).unwrap().max_name_len(), LONGEST - ARN);
        assert_eq!(template(&fits.replace("/%s", "a/%s")), Err(InvalidParameterTemplate::TooLong));
    }

    #[test]
    fn paths_that_some_user_would_break_are_refused() {
        use InvalidParameterTemplate::{Character, NoLeadingSlash, Reserved, TooManyLevels};
        for (path, why) in [
            ("app/%s", NoLeadingSlash),
            ("/aws/%s", Reserved),
            ("/AWSx/%s", Reserved),
            ("/Ssm/%s", Reserved),
            ("/a@b/%s", Character),
            ("/a+b/%s", Character),
            ("/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/%s", TooManyLevels),
        ] {
            assert_eq!(template(path), Err(why), "{path}");
        }
        assert!(template("/1/2/3/4/5/6/7/8/9/10/11/12/13/14/%s").is_ok());
        assert!(template("/app/no-%s-percent/key").is_ok());
    }

    #[test]
    fn nobodys_name_is_no_ids() {
        let template = template("/app/%s/key").unwrap();
        assert_eq!(probe_name(&template), "/app/--/key");
        assert_eq!(template.id(&probe_name(&template)), None);
        assert_ne!(template.name(&KeyId::new("--").unwrap()), probe_name(&template));
    }

    #[test]
    fn the_listed_path_is_what_all_names_share() {
        assert_eq!(listed_path(&template("/app/keys/%s").unwrap()), ("/app/keys", false));
        assert_eq!(listed_path(&template("/app/user-%s").unwrap()), ("/app", false));
        assert_eq!(listed_path(&template("/app/%s/key").unwrap()), ("/app", true));
    }
}
