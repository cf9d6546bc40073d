//! Values without parts, as the schema sees them.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A value that one expression describes.
macro_rules! scalars {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

scalars! {
    /// A string; a number stands for its digits.
    Text = { "type": ["string", "number"] };
    /// A string that is not empty.
    Filled = { "type": ["string", "number"], "pattern": "\\S" };
    /// What a `${NAME}` may become is known once it is filled in.
    Variable = { "type": "string", "pattern": "\\$\\{" };
    Bool = { "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "\\$\\{" }] };
    Duration = { "anyOf": [
        {
            "type": "string",
            "pattern": "^\\s*(0|([0-9]+(\\.[0-9]+)?\\s*[A-Za-zµ]+\\s*)+)\\s*$|\\$\\{",
            "examples": ["5s", "1m30s", "250ms"]
        },
        { "const": 0 }
    ] };
    Size = { "anyOf": [
        { "type": "string", "pattern": "^\\s*[0-9]+\\s*([kKmMgG]?[bB]?|[KMG]iB?)\\s*$|\\$\\{", "examples": ["10MB", "64KiB"] },
        { "type": "integer", "minimum": 0 }
    ] };
    Mode = { "anyOf": [
        { "type": "string", "pattern": "^(0o)?[0-7]{3,5}$|\\$\\{", "examples": ["0644"] },
        { "type": "integer", "minimum": 100, "maximum": 7777 }
    ] };
    SocketAddress = { "type": "string", "pattern": "^\\s*([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]+\\s*$|\\$\\{", "examples": ["127.0.0.1:8500"] };
    Subnet = { "type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]+){3}/[0-9]+\\s*$|\\$\\{", "examples": ["10.50.0.0/24"] };
    Sources = { "type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]+){3}(/[0-9]+)?\\s*$|\\$\\{", "examples": ["10.0.0.0/8"] };
    Reference = {
        "type": "string",
        "pattern": "^(registry|(networks|containers|processes|services|checks|templates)/.+)$|\\$\\{"
    };
    Target = { "type": "string", "pattern": "^(containers|processes)/.+$|\\$\\{" };
    Assignment = { "type": "string", "pattern": "^[^=]+=|\\$\\{" };
    ShortMount = { "type": "string", "pattern": ":|\\$\\{", "examples": ["./work.py:/srv/work.py:ro"] };
    Host = { "const": "host" };
    Tag = { "anyOf": [
        { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$|\\$\\{" },
        { "type": "number" }
    ] };
    Method = { "type": "string", "pattern": "^[A-Za-z]{1,16}$|\\$\\{", "examples": ["GET", "HEAD"] };
    Package = { "anyOf": [
        { "type": "string", "pattern": "^[a-z0-9][a-z0-9+.-]+$|\\$\\{" },
        { "type": "number", "minimum": 0 }
    ] };
    StackName = {
        "anyOf": [
            { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$|\\$\\{" },
            { "type": "integer", "minimum": 0 }
        ]
    };
}

/// A signal's name, as it is completed; other spellings and numbers are signals too.
pub struct Signal;

impl JsonSchema for Signal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Signal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<String> = crate::spec::model::Signal::names().collect();
        json_schema!({ "anyOf": [{ "enum": names }, { "type": ["string", "integer"] }] })
    }
}

/// A whole number.
pub struct Int<const LEAST: u32, const MOST: u32>;

impl<const LEAST: u32, const MOST: u32> JsonSchema for Int<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Int{LEAST}To{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": LEAST, "maximum": MOST },
            { "type": "string", "pattern": "\\$\\{" }
        ] })
    }
}

/// What may be null too; an optional field may only be left out.
pub struct Nullable<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Nullable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Nullable{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [inner, { "const": null }] })
    }
}

/// A list, or one value that stands for a list of it.
pub struct Many<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Many{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "array", "items": item, "maxItems": 1000 }, item] })
    }
}

/// A mapping from names that the spec chooses.
pub struct Named<T, const MOST: usize, const UNDERSCORE: bool>(PhantomData<T>);

impl<T: JsonSchema, const MOST: usize, const UNDERSCORE: bool> JsonSchema
    for Named<T, MOST, UNDERSCORE>
{
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        let inner = if UNDERSCORE {
            "[a-z0-9_-]*"
        } else {
            "[a-z0-9-]*"
        };
        json_schema!({
            "type": ["object"],
            "propertyNames": { "pattern": format!("^[a-z0-9]({inner}[a-z0-9])?$"), "maxLength": MOST },
            "additionalProperties": value,
            "maxProperties": 1000
        })
    }
}
