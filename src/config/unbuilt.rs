//! Settings that this version reads but doesn't act upon. Serving refuses them: a setting that is silently without
//! effect is worse than one that is missing. A row goes when its feature comes.

use super::model::Config;

/// A key, and whether it is set to something that isn't built.
type Row = (&'static str, fn(&Config) -> bool);

const ROWS: &[Row] = &[("multitenancy.enabled", |c| c.multitenancy.enabled)];

impl Config {
    /// One full error text for each setting that this version can't honour; empty when it can serve.
    pub fn unsupported(&self) -> Vec<String> {
        ROWS.iter()
            .filter(|(_, is_set)| is_set(self))
            .map(|(key, _)| format!("{key}: not supported by this version; remove it"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn the_defaults_are_supported() {
        assert_eq!(Config::default().unsupported(), Vec::<String>::new());
    }

    #[test]
    fn every_row_is_a_key() {
        for (key, _) in ROWS {
            assert!(keys::find(key).is_some(), "{key}");
        }
    }

    #[test]
    fn what_is_not_built_is_named() {
        let mut config = Config::default();
        config.multitenancy.enabled = true;
        let texts = config.unsupported();
        let expected =
            ["multitenancy.enabled"].map(|key| format!("{key}: not supported by this version; remove it"));
        assert_eq!(texts, expected);
    }
}
