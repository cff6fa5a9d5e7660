-- What services want to know of a person besides name, address and roles: projects, groups, an avatar. Claims name them.

ALTER TABLE users ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object');
