//! The connection data that a runner asks for before its session.

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::ids::{self, Id};
use super::{Asked, unknown};

/// The service that the runner looks for; with another owner it would look for another server.
const AREA: &str = "a85b8835-c1a1-4aac-ae97-1c3d0ba72dbd";

/// `GET /_tenant/_apis/connectionData`.
pub(super) fn connection_data(asked: &Asked) -> Response {
    if (&asked.method, asked.path.as_str()) != (&Method::GET, "/_tenant/_apis/connectionData") {
        return unknown();
    }
    let server = ids::uuid(Id::Server, 1);
    let access = json!({
        "moniker": "HostGuidAccessMapping",
        "displayName": "Host Guid Access Mapping",
        "accessPoint": format!("{}/", asked.base),
        "serviceOwner": server,
        "virtualDirectory": "_tenant",
    });
    Json(json!({
        "instanceId": server,
        "deploymentId": server,
        "deploymentType": "hosted",
        "locationServiceData": {
            "serviceOwner": AREA,
            "defaultAccessMappingMoniker": access["moniker"],
            "lastChangeId": 1,
            "lastChangeId64": 1,
            "clientCacheFresh": false,
            "clientCacheTimeToLive": 3600,
            "accessMappings": [access],
            "serviceDefinitions": [],
        },
    }))
    .into_response()
}
