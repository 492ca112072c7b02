BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'search');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'weights','{"4": "22002a029d7433f2"}');
INSERT INTO "study_user_attributes" VALUES(2,1,'images','{"0.png": "2f43791a3efff650", "1.png": "e782d5f356a7fdb2"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'settings','{"name": "search", "codec": "tiny", "metric": "mse", "qualities": [4], "crops": {"n": null, "size": 64}, "batch": 1, "seed": 0, "trials": 100, "objectives": ["cost"], "sampler": {"kind": "tpe", "multivariate": true, "startup": 3, "seed": 0}, "pruner": {"kind": "median", "startup": 1, "warmup": 0}, "base": {"stop_below": 0.0, "stage": [{"evaluations": 3, "kind": "mean-field", "steps": 1, "learning_rate": 0.2, "learning_rate_of": {"z": 0.4}, "decay": {"start": 1.0, "end": 0.2, "shape": "cosine", "hold": 0.0}, "betas": [0.8, 0.9], "variance": {"start": 0.0, "end": 1.0, "reached": 0.9}, "side": {"start": 1.0, "end": 0.01, "shape": "exponential", "hold": 0.0}, "side_until": 0.95, "fraction": 0.35, "curvature_every": 100, "check_every": 20, "patience": null}]}, "enqueue": [{"stage.0.learning_rate": 0.2}, {"stage.0.learning_rate": 10.0}], "space": [{"path": "stage.0.learning_rate", "split": null, "low": 0.05, "high": 10.0, "log": true, "step": null, "choices": null}]}');
INSERT INTO "study_user_attributes" VALUES(4,1,'lof_study_format','1');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_heartbeats" VALUES(1,1,'2026-11-28 04:12:39');
INSERT INTO "trial_heartbeats" VALUES(2,2,'2026-11-28 04:12:48');
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,-8.15564067021723460015e-02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,2,1,0.0,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'stage.0.learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 10.0, "log": true}}');
INSERT INTO "trial_params" VALUES(2,2,'stage.0.learning_rate',10.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 10.0, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"stage.0.learning_rate": 0.2}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"stage.0.learning_rate": 10.0}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'profile','{"name": "search-0", "summary": "", "stop_below": 0.0, "stage": [{"evaluations": 3, "kind": "mean-field", "steps": 1, "learning_rate": 0.2, "learning_rate_of": {"z": 0.4}, "decay": {"start": 1.0, "end": 0.2, "shape": "cosine", "hold": 0.0}, "betas": [0.8, 0.9], "variance": {"start": 0.0, "end": 1.0, "reached": 0.9}, "side": {"start": 1.0, "end": 0.01, "shape": "exponential", "hold": 0.0}, "side_until": 0.95, "fraction": 0.35, "curvature_every": 100, "check_every": 20, "patience": null}]}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'running','[-0.08155640670217235, -0.060758922467791854]');
INSERT INTO "trial_user_attributes" VALUES(3,1,'figures','{"cost": -0.060758922467791854, "bd_rate": null, "evaluations": 4.0, "seconds": 1.4991061674998036}');
INSERT INTO "trial_user_attributes" VALUES(4,2,'profile','{"name": "search-1", "summary": "", "stop_below": 0.0, "stage": [{"evaluations": 3, "kind": "mean-field", "steps": 1, "learning_rate": 10.0, "learning_rate_of": {"z": 0.4}, "decay": {"start": 1.0, "end": 0.2, "shape": "cosine", "hold": 0.0}, "betas": [0.8, 0.9], "variance": {"start": 0.0, "end": 1.0, "reached": 0.9}, "side": {"start": 1.0, "end": 0.01, "shape": "exponential", "hold": 0.0}, "side_until": 0.95, "fraction": 0.35, "curvature_every": 100, "check_every": 20, "patience": null}]}');
INSERT INTO "trial_user_attributes" VALUES(5,2,'running','[0.0]');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,-6.07589224677918537942e-02,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,0.0,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-28 04:12:39.285503','2026-11-28 04:12:43.876096');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-28 04:12:48.350259','2026-11-28 04:12:50.241285');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
