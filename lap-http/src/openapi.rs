//! The description of the API, generated from the handlers and their types.

use axum::body::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Info, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::problem::ProblemBody;

/// The finished document as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Document(pub(crate) Bytes);

const SCHEME: &str = "master_key";

/// Says that every operation of a group needs authentication.
pub(crate) fn protect(document: &mut OpenApi) {
    let requirement = SecurityRequirement::new::<_, [&str; 0], &str>(SCHEME, []);
    for operation in operations(document) {
        operation
            .security
            .get_or_insert_default()
            .push(requirement.clone());
    }
}

/// Adds what all operations have in common.
pub(crate) fn finish(mut document: OpenApi) -> OpenApi {
    document.info = Info::new("LAP", env!("CARGO_PKG_VERSION"));
    document.info.description = Some("Coding agents in isolated sandboxes.".to_owned());
    let name = ProblemBody::name();
    for operation in operations(&mut document) {
        let content = Content::new(Some(Ref::from_schema_name(name.as_ref())));
        let problem = ResponseBuilder::new()
            .description("A problem")
            .content("application/problem+json", content)
            .build();
        operation
            .responses
            .responses
            .insert("default".to_owned(), RefOr::T(problem));
    }
    let components = document.components.get_or_insert_default();
    components
        .schemas
        .insert(name.into_owned(), ProblemBody::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    document
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ]
        .into_iter()
        .flatten()
    })
}
