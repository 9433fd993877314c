//! Embedded files.

/// Media types of the files.
#[derive(Debug, Clone, Copy)]
pub(super) enum MediaType {
    Html,
    Css,
    Script,
    Svg,
    Text,
}

impl MediaType {
    /// Returns the value of `Content-Type`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Svg => "image/svg+xml",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// A file, as it is and compressed.
#[derive(Debug)]
pub(super) struct File {
    /// Path below that of the page.
    pub(super) path: &'static str,
    /// Media type.
    pub(super) media_type: MediaType,
    /// Content.
    pub(super) plain: &'static [u8],
    /// Content, compressed.
    pub(super) gzip: &'static [u8],
}

/// Embeds a file of `console/web`, and its compressed form in `console/packed`.
macro_rules! embedded {
    ($path:literal, $media_type:ident) => {
        $crate::http::console::file::File {
            path: $path,
            media_type: $crate::http::console::file::MediaType::$media_type,
            plain: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/console/web/", $path)),
            gzip: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/console/packed/", $path, ".gz")),
        }
    };
}
pub(super) use embedded;
