//! The accelerator in a chain: the dynamic module that lets requests of known keys pass, upon which
//! the check behind it is skipped.

use super::http_filter::HttpFilter;
use super::node::Node;

/// Name of the module's library, without `lib` and `.so`.
const LIBRARY: &str = "talos_module";

/// Condition of the check behind the module.
pub(super) const CONDITION: &str = "\
filter_enabled_metadata:
  filter: envoy.filters.http.ext_authz
  path: [{ key: decision }]
  value: { string_match: { exact: allow } }
  invert: true";

/// Returns true for the accelerator.
pub(super) fn is_accelerator(filter: &HttpFilter<'_>) -> bool {
    let module = filter.config.get("dynamic_module_config");
    let is_named = module.get("name").text() == Some(LIBRARY);
    filter.kind == Some("DynamicModuleFilter")
        && (is_named || module.get_path("module.local.filename").text().is_some_and(is_library))
}

/// Returns true for the path of the library, whose name in a release ends with version and machine.
fn is_library(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let name = file.strip_prefix("lib").and_then(|name| name.strip_suffix(".so"));
    name.is_some_and(|name| name.starts_with(LIBRARY))
}

/// Returns the filters between the accelerator and the check at an index: requests that the
/// accelerator lets pass meet them after the decision.
pub(super) fn filters_between<'m, 'a>(
    filters: &'m [HttpFilter<'a>],
    check: usize,
) -> impl Iterator<Item = &'m HttpFilter<'a>> {
    let module = filters.iter().take(check).position(is_accelerator);
    filters.iter().take(check).skip(module.map_or(check, |module| module + 1))
}

/// Returns true if a `filter_enabled_metadata` is [`CONDITION`]: the check is skipped for what the
/// accelerator let pass, and for nothing else.
pub(super) fn is_its_condition(wanted: &Node<'_>) -> bool {
    let path = wanted.items("path");
    let value = wanted.get_path("value.string_match");
    let is_exact = value.get("exact").text() == Some("allow") && !value.get("ignore_case").is_true();
    wanted.get("filter").text() == Some("envoy.filters.http.ext_authz")
        && matches!(&path[..], [only] if only.get("key").text() == Some("decision"))
        && is_exact
        && wanted.get("invert").is_true()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_has_one_name_with_and_without_a_version() {
        for (path, expected) in [
            ("libtalos_module.so", true),
            ("/usr/local/lib/talos/libtalos_module.so", true),
            ("/opt/libtalos_module-0.1.0-x86_64-linux-gnu.so", true),
            ("/opt/libtalos_module.so/other.so", false),
            ("/opt/talos_module.so", false),
            ("/opt/libtalos_module.so.sha256", false),
            ("", false),
        ] {
            assert_eq!(is_library(path), expected, "{path}");
        }
    }
}
