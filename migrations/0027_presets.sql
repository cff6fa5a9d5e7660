-- Which presets a tenant was given, by name: what each set, so that later it can be told what was changed by hand since.

ALTER TABLE tenants ADD COLUMN presets jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(presets) = 'object');
