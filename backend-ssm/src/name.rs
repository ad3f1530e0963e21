//! Parameter Store's limits on names. They are checked on the template, so that no id can get a
//! name that is too long or invalid.

use keystead_aws::is_arn;
use keystead_core::{InvalidNameTemplate, NameTemplate};

/// The largest length of a name together with the ARN before it, in characters (`PutParameter`,
/// `Name`).
const LONGEST: usize = 1011;

/// The number of characters reserved for the ARN, whose length depends on the partition and the
/// region.
const ARN: usize = 70;

/// The largest number of levels in a hierarchy.
const MOST_LEVELS: usize = 15;

/// Returns the template of this path, if the names of all ids are valid in Parameter Store.
pub(crate) fn template(path: &str) -> Result<NameTemplate, InvalidParameterTemplate> {
    refuse_arn(path)?;
    let template = NameTemplate::new(path).map_err(InvalidParameterTemplate::Template)?;
    if !path.starts_with('/') {
        return Err(InvalidParameterTemplate::NoLeadingSlash);
    }
    checked(path, template)
}

/// Returns the template of a path that other software has used. The path may be flat: `/%s`,
/// `/app-%s` or `app-%s`. The name of an id can then be [reserved](is_reserved).
pub(crate) fn legacy_template(path: &str) -> Result<NameTemplate, InvalidParameterTemplate> {
    refuse_arn(path)?;
    let template = NameTemplate::new_flat(path).map_err(InvalidParameterTemplate::Template)?;
    if path.contains('/') && !path.starts_with('/') {
        return Err(InvalidParameterTemplate::NoLeadingSlash);
    }
    checked(path, template)
}

/// Refuses an ARN for what it is, because an error about its colons would not help.
fn refuse_arn(path: &str) -> Result<(), InvalidParameterTemplate> {
    match is_arn(path.trim_start_matches('/')) {
        true => Err(InvalidParameterTemplate::Arn),
        false => Ok(()),
    }
}

/// Checks the limits that apply to all paths.
fn checked(path: &str, template: NameTemplate) -> Result<NameTemplate, InvalidParameterTemplate> {
    if path.contains(['+', '=', '@']) {
        return Err(InvalidParameterTemplate::Character);
    }
    if is_reserved(template.prefix()) {
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

/// Reports whether Parameter Store reserves this name. No user's parameter has such a name.
pub(crate) fn is_reserved(name: &str) -> bool {
    let first = name.trim_start_matches('/').to_ascii_lowercase();
    first.starts_with("aws") || first.starts_with("ssm")
}

/// Returns the path that contains all names, and whether the names are more than one level below
/// it.
pub(crate) fn listed_path(template: &NameTemplate) -> (&str, bool) {
    let path = template.prefix().rsplit_once('/').map_or("", |(path, _)| path);
    (path, template.suffix().contains('/'))
}

/// The reason why a path is not a template of parameter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidParameterTemplate {
    /// It is not a [`NameTemplate`].
    #[error("{0}")]
    Template(InvalidNameTemplate),
    /// It is an ARN.
    #[error(
        "an ARN cannot be a path, because Parameter Store writes by name only: to use another account, assume a role \
         in it, and give the path alone, as /app/user-keys/%s"
    )]
    Arn,
    /// It contains a `+`, `=` or `@`.
    #[error("the path contains +, = or @, which a parameter's name must not have: remove them")]
    Character,
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash: write it as /app/user-keys/%s")]
    NoLeadingSlash,
    /// It begins with `aws` or `ssm`, in any case.
    #[error("the path begins with aws or ssm, which Parameter Store reserves: begin it with another word")]
    Reserved,
    /// It has more than 15 levels.
    #[error("the path has more than 15 levels: shorten it")]
    TooManyLevels,
    /// The name of the longest id would have more than 941 characters (1,011 less 70 for the ARN).
    #[error("the name of the longest id would have more than 941 characters: shorten the path")]
    TooLong,
}

#[cfg(test)]
mod tests {
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
    fn an_arn_is_refused_with_the_way_into_another_account() {
        for path in ["arn:aws:ssm:eu-west-1:123456789012:parameter/app/%s", "/ARN:aws:ssm:::parameter/%s"] {
            assert_eq!(template(path), Err(InvalidParameterTemplate::Arn), "{path}");
            assert_eq!(legacy_template(path), Err(InvalidParameterTemplate::Arn), "{path}");
        }
        assert!(InvalidParameterTemplate::Arn.to_string().contains("assume a role"));
    }

    #[test]
    fn a_legacy_path_may_be_flat() {
        use InvalidParameterTemplate::{Character, NoLeadingSlash, Reserved, Template};
        for path in ["/%s", "%s", "/app-%s", "app-%s", "/a%s", "/app/user-keys/%s", "/%s/key"] {
            assert!(legacy_template(path).is_ok(), "{path}");
        }
        for path in ["/%s", "/app-%s"] {
            assert_eq!(template(path), Err(Template(InvalidNameTemplate::FirstSegmentNotLiteral)), "{path}");
        }
        for (path, why) in
            [("app/%s", NoLeadingSlash), ("%s/key", NoLeadingSlash), ("/aws-%s", Reserved), ("/a@%s", Character)]
        {
            assert_eq!(legacy_template(path), Err(why), "{path}");
        }
    }

    #[test]
    fn names_that_parameter_store_reserves_are_known() {
        for name in ["/aws", "aws-x", "/AWSome", "/ssm/x", "Ssm"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["/", "", "/app-aws", "/aw", "/--aws"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn the_listed_path_is_what_all_names_share() {
        assert_eq!(listed_path(&template("/app/keys/%s").unwrap()), ("/app/keys", false));
        assert_eq!(listed_path(&template("/app/user-%s").unwrap()), ("/app", false));
        assert_eq!(listed_path(&template("/app/%s/key").unwrap()), ("/app", true));
    }
}
