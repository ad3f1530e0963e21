//! [`probe_name`]: a name to read that belongs to no id.

use keystead_core::NameTemplate;

/// Returns a name that the template gives to no id, for a read that only proves that reading is
/// allowed.
pub fn probe_name(template: &NameTemplate) -> String {
    format!("{}--{}", template.prefix(), template.suffix())
}

#[cfg(test)]
mod tests {
    use keystead_core::KeyId;

    use super::*;

    #[test]
    fn the_probe_name_belongs_to_no_id() {
        let template = NameTemplate::new("/app/%s/key").unwrap();
        assert_eq!(probe_name(&template), "/app/--/key");
        assert_eq!(template.id(&probe_name(&template)), None);
        assert_ne!(template.name(&KeyId::new("--").unwrap()), probe_name(&template));
    }
}
