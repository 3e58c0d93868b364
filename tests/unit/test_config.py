"""Settings come from the strongest source that has them, and a bad one says where it stands."""

from dataclasses import FrozenInstanceError, fields

import pytest

from wren_backends import Config, ConfigError, sources


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write files into the working directory, or for the user's own into `user`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def test_defaults_stand_where_nothing_is_set(files):
    assert Config.load() == Config()


SOURCES = ["argument", "environment", "wren.toml", "pyproject.toml", "user"]


@pytest.mark.parametrize("strongest", SOURCES)
def test_each_source_beats_the_weaker_ones(files, monkeypatch, strongest):
    present = SOURCES[SOURCES.index(strongest) :]
    if "wren.toml" in present:
        files("wren.toml", 'prefix = "from-wren.toml"')
    if "pyproject.toml" in present:
        files("pyproject.toml", '[tool.wren]\nprefix = "from-pyproject.toml"')
    if "user" in present:
        files("user/wren/wren.toml", 'prefix = "from-user"')
    if "environment" in present:
        monkeypatch.setenv("WREN_PREFIX", "from-environment")
    arguments = {"prefix": "from-argument"} if "argument" in present else {}
    assert Config.load(**arguments).prefix == f"from-{strongest}"


def test_sources_add_up(files, monkeypatch):
    files("wren.toml", 'bucket = "b"\ntimeout_s = 7')
    monkeypatch.setenv("WREN_TIMEOUT_S", "8")
    config = Config.load(mode="s3")
    assert (config.bucket, config.timeout_s, config.mode) == ("b", 8, "s3")


def test_a_changed_file_counts_from_the_next_load_on(files):
    for retries in (1, 2, 1):
        files("wren.toml", f"retries = {retries}")
        assert Config.load().retries == retries


def test_user_file_lies_in_dot_config_without_xdg(files, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    files("home/.config/wren/wren.toml", "retries = 4")
    assert Config.load().retries == 4


def test_none_and_an_empty_variable_count_as_not_given(files, monkeypatch):
    files("wren.toml", "retries = 4")
    monkeypatch.setenv("WREN_RETRIES", "")
    assert Config.load(retries=None).retries == 4


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAX_WORKERS", "12", 12),
        ("RETRY_BUDGET_S", "2.5", 2.5),
        ("FORWARD_OUTPUT", "no", False),
        ("FORWARD_OUTPUT", "TRUE", True),
        ("REGION", "eu-central-1", "eu-central-1"),
    ],
)
def test_variables_are_converted(files, monkeypatch, name, text, value):
    monkeypatch.setenv(f"WREN_{name}", text)
    found = getattr(Config.load(), name.lower())
    assert found == value
    assert type(found) is type(value)


def test_an_integer_serves_as_a_float(files):
    assert Config.load(retry_budget_s=5).retry_budget_s == 5.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_workers", 0),
        ("max_workers", "many"),
        ("max_workers", 1.5),
        ("max_workers", True),
        ("max_workers", float("inf")),
        ("max_attempts", -1),
        ("retry_budget_s", float("nan")),
        ("retry_budget_s", -0.1),
        ("forward_output", "perhaps"),
        ("forward_output", 1),
        ("mode", "carrier pigeon"),
        ("cloud", "azure"),
        ("bucket", 7),
        ("memory_mb", 64),
        ("timeout_s", [1]),
    ],
)
def test_a_bad_value_is_refused_by_name(files, name, value):
    with pytest.raises(ConfigError, match=name):
        Config.load(**{name: value})


def test_an_unknown_argument_is_refused(files):
    with pytest.raises(ConfigError, match=r"argument: there is no setting 'max_worker' \(is it 'max_workers'\?\)"):
        Config.load(max_worker=3)


def test_a_value_that_is_refused_says_where_it_stands(files, monkeypatch):
    monkeypatch.setenv("WREN_MODE", "S3")
    with pytest.raises(ConfigError, match=r"environment variable WREN_MODE: mode='S3': .*direct, s3 \(is it 's3'\?\)"):
        Config.load()
    monkeypatch.setenv("WREN_MODE", "s3")
    monkeypatch.setenv("WREN_MAX_WORKERS", "many")
    with pytest.raises(ConfigError, match="environment variable WREN_MAX_WORKERS: max_workers='many'"):
        Config.load()
    monkeypatch.delenv("WREN_MAX_WORKERS")
    files("wren.toml", "max_workers = 0")
    with pytest.raises(ConfigError, match=r"wren.toml: max_workers=0: has to be at least 1"):
        Config.load()
    with pytest.raises(ConfigError, match=r"^max_workers=-1: has to be at least 1"):
        Config.load(max_workers=-1)


@pytest.mark.parametrize("name", ["mp_context", "max_tasks_per_child"])
def test_what_only_process_pools_have_is_refused_unless_it_is_their_default(files, name):
    assert Config.load(**{name: None}) == Config()
    with pytest.raises(ConfigError, match=f"'{name}' has no meaning here"):
        Config.load(**{name: 3})


def test_a_variable_that_is_no_setting_is_warned_of_once(files, monkeypatch):
    monkeypatch.setattr(sources, "_warned_of", set())
    monkeypatch.setenv("WREN_MOD", "s3")
    monkeypatch.setenv("WREN_LOGLEVEL", "INFO")
    monkeypatch.setenv("WREN_PACKAGES", "s3://bucket/wren/packages/list")  # of a function with an archive
    with pytest.warns(UserWarning, match=r"WREN_MOD is no setting .*is it 'WREN_MODE'\?") as caught:
        assert Config.load() == Config.load() == Config()
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "least", "most"), [("memory_mb", 128, 10240), ("retry_memory_mb", 128, 10240), ("timeout_s", 1, 900)]
)
def test_lambdas_limits(files, name, least, most):
    for fine in (least, most):
        assert getattr(Config.load(**{name: fine}), name) == fine
    with pytest.raises(ConfigError, match=f"{name}={most + 1}: has to be at most {most}"):
        Config.load(**{name: most + 1})


@pytest.mark.parametrize("file", ["wren.toml", "pyproject.toml"])
def test_a_projects_files_are_found_from_below_and_the_nearest_folder_wins(files, monkeypatch, tmp_path, file):
    head = "[tool.wren]\n" if file == "pyproject.toml" else ""
    files(file, f"{head}retries = 4\nmax_workers = 7")
    files("near/pyproject.toml", "[tool.other]\nretries = 5")
    (tmp_path / "near" / "by").mkdir()
    monkeypatch.chdir(tmp_path / "near" / "by")
    assert (Config.load().retries, Config.load().max_workers) == (4, 7)
    files(f"near/{file}", f"{head}retries = 6")
    assert (Config.load().retries, Config.load().max_workers) == (6, None)
    assert Config.origins()["retries"].startswith(str(tmp_path / "near" / file))


def test_a_folder_where_everybody_may_leave_files_is_searched_only_if_one_works_there(files, monkeypatch, tmp_path):
    files("wren.toml", "retries = 4")
    (tmp_path / "own").mkdir()
    tmp_path.chmod(0o1777)
    assert Config.load().retries == 4
    monkeypatch.chdir(tmp_path / "own")
    assert Config.load().retries == 0


def test_a_home_that_is_no_folder_is_as_one_without_a_file(files, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/dev/null")
    assert Config.load() == Config()


def test_a_working_directory_that_is_gone_has_no_files(files, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Config.load() == Config()


@pytest.mark.parametrize("text", ["retries = 'many'", "no_such_setting = 1", "retries = "])
def test_an_error_in_wren_toml_names_the_file(files, text):
    files("wren.toml", text)
    with pytest.raises(ConfigError, match=r"wren\.toml"):
        Config.load()


@pytest.mark.parametrize(
    "text", ["[tool.wren]\nretries = 'many'", "[tool.wren]\nno_such_setting = 1", "[tool]\nwren = 3", "tool = 3"]
)
def test_an_error_in_pyproject_names_the_file(files, text):
    files("pyproject.toml", text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        Config.load()


def test_an_error_in_the_users_file_names_its_path(files, tmp_path):
    files("user/wren/wren.toml", "retries = 'many'")
    with pytest.raises(ConfigError) as caught:
        Config.load()
    assert str(tmp_path / "user" / "wren" / "wren.toml") in str(caught.value)


def test_an_error_in_the_environment_says_so(files, monkeypatch):
    monkeypatch.setenv("WREN_RETRIES", "many")
    with pytest.raises(ConfigError, match=r"environment.*retries.*'many'"):
        Config.load()


def test_an_unreadable_file_is_no_traceback_of_ours(files, tmp_path):
    (tmp_path / "wren.toml").mkdir()
    with pytest.raises(ConfigError, match=r"wren\.toml cannot be read"):
        Config.load()


def test_config_is_frozen_and_hashable():
    assert hash(Config()) == hash(Config())
    with pytest.raises(FrozenInstanceError):
        Config().mode = "s3"


def test_table_has_every_setting():
    table = Config.table()
    for one in fields(Config):
        assert f"| `{one.name}` | `WREN_{one.name.upper()}` |" in table
    assert len(table.splitlines()) == len(fields(Config)) + 2


def test_a_name_leaves_room_for_the_sizes_beside_it(files):
    assert Config(function="f" * 64).sizes_mb == ()
    assert Config(function="f" * 56, sizes_mb=(10240,)).each_function()[1].function == "f" * 56 + "-10240mb"
    for more in ({"sizes_mb": (10240,)}, {"retry_memory_mb": 10240}):
        with pytest.raises(ConfigError, match="a shorter name"):
            Config(function="f" * 57, **more)


def test_the_size_for_calls_that_ran_out_of_memory_is_a_function_of_its_own():
    config = Config(memory_mb=512, retry_memory_mb=512, sizes_mb=(512, 256))
    assert [one.function for one in config.each_function()] == ["wren", "wren-256mb", "wren-512mb"]
    assert config.of_larger_function().function == "wren-512mb"
