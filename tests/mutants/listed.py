"""One-line mutants: what a careless hand would change, and the tests that must notice."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one place. tests: arguments of pytest; one of them must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


_ENGINE = "distillctl/engine/"
_TRAIN = "tests/commands/test_train_command.py"
_LOOP = "tests/engine/test_loop.py"
_CIFAR = "plugins/distillctl-cifar/"

MUTANTS = (
    # The nineteen that survived once.
    Mutant("the last epoch is deployed as the best", "distillctl/commands/train.py",
           "best_epoch = restore_student(model, run.checked(run.best))", "best_epoch = restore_student(model, run.checked(run.last))", _TRAIN),
    Mutant("raw weights instead of the average are evaluated", _ENGINE + "learner.py",
           "return self.model if self.ema is None else self.ema.model", "return self.model", "tests/engine/test_learner.py"),
    Mutant("the schedule is one step early", _ENGINE + "step.py",
           "fraction = step / self.total_steps", "fraction = (step + 1) / self.total_steps", "tests/engine/test_step.py tests/engine/test_schedule.py"),
    Mutant("label_smoothing of a profile is ignored", "distillctl/build/data.py",
           "label_smoothing=profile.train.label_smoothing)", "label_smoothing=0.0)", "tests/build"),
    Mutant("a preset beats the weight that the profile states", "distillctl/profile/method_tables.py",
           "core = {**defaults, **{k: v for k, v in given.items() if k in _CORE}, **stated}",
           "core = {**defaults, **stated, **{k: v for k, v in given.items() if k in _CORE}}", "tests/profile/test_reading.py tests/methods/test_presets.py"),
    Mutant("coarse labels of CIFAR-100", _CIFAR + "distillctl_cifar/data/archive.py", '"fine_labels"]]', '"coarse_labels"]]', _CIFAR + "tests/test_cifar_data.py"),
    Mutant("mean of CIFAR-100 mistyped", _CIFAR + "distillctl_cifar/data/build.py", "(0.5071, 0.4867, 0.4408)", "(0.5071, 0.4687, 0.4408)", _CIFAR + "tests/test_cifar_data.py"),
    Mutant("std of CIFAR-10 mistyped", _CIFAR + "distillctl_cifar/data/build.py", "(0.2470, 0.2435, 0.2616)", "(0.2470, 0.2453, 0.2616)", _CIFAR + "tests/test_cifar_data.py"),
    Mutant("gradients are clipped while they are scaled", _ENGINE + "learner.py",
           "            self.scaler.unscale_(stepper)  # type: ignore[arg-type]\n", "", "tests/engine/test_learner.py"),
    Mutant("a phase's own rate is ignored", "distillctl/build/parts.py", "rate if phase.lr is None else phase.lr", "rate", "tests/build tests/engine/test_phases.py"),
    Mutant("flipped views stand upside down", "distillctl/data/resident.py", "pixels.flip(-1)", "pixels.flip(-2)", "tests/data/test_resident_views.py"),
    Mutant("flipped views of files stand upside down", "distillctl/data/stream.py", "batch.images.flip(-1)", "batch.images.flip(-2)", "tests/data"),
    Mutant("lr_scale is ignored", _ENGINE + "learner.py", 'rate * group.get("lr_scale", 1.0)', "rate", "tests/engine/test_step.py"),
    Mutant("betas of AdamW are swapped", "distillctl/builtin/optimizer_builders.py", "(options.beta1, options.beta2)", "(options.beta2, options.beta1)", "tests/builtin"),
    Mutant("the momentum of SGD is lost", "distillctl/builtin/optimizer_builders.py", "        momentum=options.momentum,\n", "", "tests/builtin/test_optimizer_builders.py"),
    Mutant("norms decay under decay = weights", "distillctl/api/optimizer.py", '"params": light, "weight_decay": 0.0}', '"params": light}', "tests/builtin/test_optimizer_builders.py"),
    Mutant("the digest is blind to the seed", "distillctl/profile/builder.py", '("tracker",)}', '("tracker",), ("seed",)}', "tests/profile"),
    Mutant("the digest is blind to label_smoothing", "distillctl/profile/builder.py", '("tracker",)}', '("tracker",), ("train", "label_smoothing")}', "tests/profile"),
    Mutant("a checkpoint of another profile is accepted", _ENGINE + "state.py", 'if state["digest"] not in (experiment.digest, *accepted):', "if False:", _LOOP),
    Mutant("randaugment without flip", "distillctl/data/augment.py", "return nn.Sequential(*crop, flip, *_on_pillow(v2.RandAugment()))",
           "return nn.Sequential(*crop, *_on_pillow(v2.RandAugment()))", "tests/data/test_file_views.py"),
    Mutant("the validation split has the test's seed", "distillctl/data/splits.py", "val_fraction, mix(seed, SPLIT))", "val_fraction, seed)", "tests/data/test_split_by_class.py"),
    Mutant("a prefix is stripped when some names have it", "distillctl/weights/state_dict.py", "if all(name.startswith(prefix) for name in state):",
           "if any(name.startswith(prefix) for name in state):", "tests/weights/test_state_dict.py"),
    Mutant("student. is removed inside of a name", "distillctl/weights/state_dict.py", 'name.removeprefix("student."): value', 'name.replace("student.", ""): value', "tests/weights/test_state_dict.py"),
    Mutant("a phase and the main part draw the same", _ENGINE + "step.py", "STEP, self._before + step, *own", "STEP, step, *own", "tests/engine/test_step.py"),
    Mutant("the teacher is in training mode", "distillctl/build/experiment.py", "channels_last).eval().requires_grad_(False)", "channels_last).train().requires_grad_(False)", "tests/build tests/engine/test_loop.py"),
    # The step and what it consists of.
    Mutant("the warm-up of a weight counts from 0", _ENGINE + "objective.py", "(progress.epoch / entry.warmup_epochs).clamp(max=1.0)", "((progress.epoch - 1) / entry.warmup_epochs).clamp(max=1.0)", "tests/engine/test_objective.py"),
    Mutant("the warm-up of a weight has no end", _ENGINE + "objective.py", ".clamp(max=1.0)", "", "tests/engine/test_objective.py"),
    Mutant("the weight of the label loss is ignored", _ENGINE + "objective.py", "task = task + self.task_weight * value", "task = task + value", "tests/engine/test_objective.py"),
    Mutant("a term of weight 0 is evaluated", _ENGINE + "objective.py", "tuple(m for m in methods if m.weight > 0)", "tuple(methods)", "tests/engine/test_objective.py"),
    Mutant("several passes are added and not averaged", _ENGINE + "objective.py", "for run in runs]).mean() for key", "for run in runs]).sum() for key", "tests/engine/test_passes.py"),
    Mutant("a method sees the teacher of another norm", _ENGINE + "objective.py", "teacher[entry.teacher_norm]", "next(iter(teacher.values()))", "tests/engine/test_passes.py"),
    Mutant("parts of a batch weigh alike", _ENGINE + "learner.py", "share = self._processes.count * piece.share", "share = self._processes.count * 1.0", "tests/engine/test_accumulate.py"),
    Mutant("gradients are not forgotten", _ENGINE + "learner.py", "        stepper.zero_grad()\n", "", "tests/engine/test_loop.py tests/engine/test_learner.py"),
    Mutant("methods are not told of a step", _ENGINE + "learner.py", "            self.objective.after_step()\n", "            pass\n", "tests/engine tests/methods/test_combinations.py"),
    Mutant("the average takes in no weights", _ENGINE + "learner.py", "            self.ema.update(self.model)\n", "            pass\n", "tests/engine/test_ema.py tests/engine/test_gradient_pair.py tests/engine/test_learner.py"),
    Mutant("the generators are seeded once", _ENGINE + "step.py", "self._before + step, *own", "self._before, *own", "tests/engine/test_step.py"),
    Mutant("the epoch of progress counts from 0", _ENGINE + "step.py", "self.progress.epoch.fill_(step // experiment.loader.steps + 1)", "self.progress.epoch.fill_(step // experiment.loader.steps)", "tests/engine/test_step.py"),
    Mutant("the norm that is clipped is that of each tensor", _ENGINE + "learner.py", "torch.nn.utils.clip_grad_norm_(self.parameters, clip)",
           "[torch.nn.utils.clip_grad_norm_(p, clip) for p in self.parameters]", "tests/engine/test_learner.py"),
    Mutant("the ramp of the average is a step late", _ENGINE + "ema.py", "math.exp(-self.updates / self.ramp)", "math.exp(-(self.updates - 1) / self.ramp)", "tests/engine/test_ema.py"),
    Mutant("statistics are not averaged", _ENGINE + "ema.py", "if mine.is_floating_point()]", 'if mine.is_floating_point() and "running" not in name]', "tests/engine/test_ema.py"),
    Mutant("a resumed average counts from 0", _ENGINE + "ema.py", 'self.updates = int(state["updates"])', "self.updates = 0", "tests/engine/test_ema.py tests/engine/test_loop.py"),
    Mutant("means are over batches", _ENGINE + "meter.py", "values = torch.cat([losses * images,", "values = torch.cat([losses * 1.0,", "tests/engine/test_meter.py"),
    Mutant("a NaN in the weights' gradient is overlooked", _ENGINE + "learner.py", "        self.finite_check.gradients(step, batch, () if self.pair is None else self.pair.second)\n", "", "tests/engine/test_finite_check.py"),
    Mutant("a NaN in a term is overlooked", _ENGINE + "learner.py", "            self.finite_check.losses(step, piece, looks, losses)\n", "", "tests/engine/test_finite_check.py"),
    # The loop, the best epoch, the checkpoint.
    Mutant("a tie goes to the earlier epoch", _ENGINE + "position.py", "not figure >= self.best_figure", "not figure > self.best_figure", "tests/engine/test_position.py"),
    Mutant("the lowest figure is the best", _ENGINE + "position.py", "not figure >= self.best_figure", "not figure <= self.best_figure", "tests/engine/test_position.py " + _LOOP),
    Mutant("what is not a number is the best", _ENGINE + "position.py", "not figure >= self.best_figure", "figure < self.best_figure", "tests/engine/test_position.py"),
    Mutant("the last of a run with validation is the best", _ENGINE + "loop.py", "last=last and not chooses", "last=last", _TRAIN + " " + _LOOP),
    Mutant("the test split chooses", _ENGINE + "loop.py", 'record["val"][self.experiment.task.metric] if "val" in record else None',
           'record["val" if "val" in record else "test"][self.experiment.task.metric]', _LOOP),
    Mutant("evaluations are every epoch", _ENGINE + "loop.py", 'record["epoch"] % experiment.settings.evaluate_every == 0', "True", _LOOP),
    Mutant("the last epoch is not evaluated", _ENGINE + "loop.py", "(last or record[", "(record[", _LOOP),
    Mutant("the record is written behind the checkpoint", _ENGINE + "loop.py", "        self._record.epoch(record)\n", "", _LOOP),
    Mutant("steps of an epoch are done again", _ENGINE + "loop.py", "experiment.loader.epoch(position.epoch, position.step)", "experiment.loader.epoch(position.epoch, 0)", _LOOP),
    Mutant("an optimizer begins anew after a resume", _ENGINE + "learner.py", '            _load_optimizer(self.optimizer, state["optimizer"], same_profile=same_profile)\n', "", _LOOP),
    Mutant("methods begin anew after a resume", _ENGINE + "learner.py", '        self.objective.methods.load_state_dict(state["methods"])\n', "", "tests/engine/test_loop.py tests/engine/test_phases.py plugins/distillctl-dot/tests/test_dot_engine.py"),
    Mutant("what an epoch had added up is lost", _ENGINE + "state.py", "            learner.meter.absorb(meter)\n", "            pass\n", _LOOP),
    Mutant("a damaged best is deployed", "distillctl/rundir/directory.py", "return self.manifest.check(self.named(path))", "return path", "tests/rundir tests/engine/test_checkpoint.py tests/commands"),
    Mutant("kept epochs are one late", _ENGINE + "loop.py", "within % keep_every == 0", "within % keep_every == 1", _LOOP),
    # The task.
    Mutant("views are averaged as probabilities", "distillctl/builtin/classification_task.py", "logits.reshape(*images.shape[:2], -1).mean(1)", "logits.reshape(*images.shape[:2], -1).softmax(-1).mean(1)", "tests/engine/test_evaluate.py"),
    Mutant("top-5 is top-1", "distillctl/builtin/classification_meter.py", "topk(min(5, self._classes), dim=1)", "topk(1, dim=1)", "tests/engine/test_evaluate.py"),
    Mutant("the mean of the classes counts empty ones", "distillctl/builtin/classification_meter.py", "(correct[seen].double() / total[seen].double()).mean()", "(correct.double() / total.clamp(min=1).double()).mean()", "tests/engine/test_evaluate.py"),
    Mutant("batches of processes lie in another order", "distillctl/builtin/classification_meter.py", "[part[number] for number in range(longest) for part in states if number < len(part)]",
           "[batch for part in states for batch in part]", "tests/builtin/test_classification_task.py"),
    Mutant("a teacher in another order of classes is taken", "distillctl/builtin/classification_task.py", "if list(ours) != list(classes) and", "if False and", "tests/builtin/test_classification_task.py"),
    Mutant("guessing reaches nothing", "distillctl/builtin/classification_task.py", "return share + 3 *", "return 0 * share + 0 *", "tests/engine/test_evaluate.py " + _TRAIN),
    Mutant("the label loss is evaluated in half precision", "distillctl/builtin/classification_task.py", "F.cross_entropy(output(outputs).float(), batch.labels", "F.cross_entropy(output(outputs).half().float(), batch.labels", "tests/engine/test_objective.py"),
    Mutant("a method that reads what there is not is taken", "distillctl/build/checks.py", "[what for what in choice.spec.reads if what not in task.gives]", "[]", "tests/plugin/test_stranger.py"),
    Mutant("inner methods may read what there is not", "distillctl/build/checks.py", "        _check_reads(choice.inner, task, data)\n", "        pass\n", "tests/plugin/test_stranger.py"),
    Mutant("a tracker that fails stops the run", _ENGINE + "trackers.py", "except (Exception, SystemExit) as error:", "except ZeroDivisionError as error:", "tests/plugin/test_stranger.py"),
    Mutant("a tracker that fails is told on", _ENGINE + "trackers.py", "                del self._foreign[name]\n", "", "tests/plugin/test_stranger.py"),
    Mutant("a tracker changes the record", _ENGINE + "trackers.py", "copy.deepcopy(fact) if isinstance(fact, dict) else fact", "fact", "tests/plugin/test_stranger.py tests/engine/test_trackers.py"),
    Mutant("trackers are part of what a run is", "distillctl/profile/builder.py", ', ("tracker",)}', "}", "tests/plugin/test_stranger.py"),
    # Data.
    Mutant("order does not depend on the epoch", "distillctl/data/order.py", "torch.arange(count, device=device), seed, epoch, ORDER)", "torch.arange(count, device=device), seed, 0, ORDER)", "tests/data"),
    Mutant("order does not depend on the seed", "distillctl/data/order.py", "torch.arange(count, device=device), seed, epoch, ORDER)", "torch.arange(count, device=device), 0, epoch, ORDER)", "tests/data"),
    Mutant("a short last batch is dropped", "distillctl/data/order.py", "min(start + batch_size, count)) for start in starts]", "start + batch_size) for start in starts if start + batch_size <= count]", "tests/data"),
    Mutant("a crop never reaches the last row", "distillctl/data/resident.py", "table.height + 2 * view.padding - view.size + 1", "table.height + 2 * view.padding - view.size", "tests/data/test_resident_views.py"),
    Mutant("pixels outside are those of the edge", "distillctl/data/resident.py", "torch.where((y >= 0) & (y < self.height), first, self._outside)", "first.clamp(min=0)", "tests/data/test_resident_views.py"),
    Mutant("images are normalised by the wrong deviation", "distillctl/data/pixels.py", "self._scale = (1 / (255 * s))", "self._scale = (1 / (256 * s))", "tests/data"),
    Mutant("a limit takes the first images", "distillctl/data/splits.py", "keys = hash_index(torch.arange(len(labels)), seed, LIMIT)", "keys = torch.arange(len(labels))", "tests/data"),
    Mutant("a fraction is rounded as a float", "distillctl/data/splits.py", "share = Fraction(str(fraction))", "share = Fraction(fraction)", "tests/data/test_split_by_class.py"),
    # Weights and models.
    Mutant("a storage may claim more than it has", "distillctl/weights/claims.py", "        if count > has.get(key, 0):", "        if False:", "tests/weights/test_claims.py"),
    Mutant("a storage of the old form may claim anything", "distillctl/weights/claims.py", "    if sum(claimed.values()) > path.stat().st_size:", "    if False:", "tests/weights/test_claims.py"),
    Mutant("checksums are not compared", "distillctl/weights/claims.py", "if any(entry.CRC for entry in entries):", "if False:", "tests/weights/test_state_dict.py tests/hostile/test_mutated_weights.py"),
    Mutant("a packed archive is mapped", "distillctl/weights/claims.py", "return Checked(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), whole)", "return Checked(True, whole)", "tests/weights/test_torch_files.py"),
    Mutant("tied weights share memory", "distillctl/weights/torch_files.py", "value.clone(memory_format=torch.contiguous_format) if place in seen else value.contiguous()", "value.contiguous()", "tests/weights/test_torch_files.py"),
    Mutant("the raw weights of a file with an average are taken", "distillctl/weights/contents.py", '"state_dict_ema", "model_ema", ', "", "tests/weights/test_state_dict.py"),
    Mutant("a mapping within itself is looked into for ever", "distillctl/weights/contents.py", "or (id(value), depth) in seen", "", "tests/weights/test_claims.py"),
    Mutant("an overwritten feature is kept", "distillctl/models/features.py", "value.clone() if name in self._cloned else value", "value", "tests/models/test_features.py"),
    Mutant("a probe moves running statistics", "distillctl/models/features.py", "with evaluating(self.model), torch.no_grad():", "with torch.no_grad():", "tests/models/test_features.py"),
    Mutant("batch statistics change the teacher", "distillctl/models/features.py", "norm.training, norm.track_running_stats = True, False", "norm.training = True", "tests/models/test_features.py tests/engine/test_passes.py"),
    # Plugins and archives.
    Mutant("a plugin that exits ends the command", "distillctl/plugin/importing.py", "except BaseException as error:  # a plugin may raise anything, and must not take the others down", "except Exception as error:", "tests/plugin tests/hostile/test_plugins.py"),
    Mutant("a declaration of a head is not compared", "distillctl/build/methods.py", "if (cls.head not in (Method.head, Wrapper.head)) != choice.spec.gives_head:", "if False:", "tests/methods/test_refusals.py"),
    Mutant("an archive's content has no bound", "distillctl/data/archives.py", "        if self.bytes < 0:", "        if False:", "tests/hostile/test_archives.py"),
    Mutant("a member of an archive may leave the folder", "distillctl/data/archives.py", 'filter="data")', 'filter="fully_trusted")', "tests/hostile/test_archives.py"),
    Mutant("a damaged header is the end of an archive", "distillctl/data/archives.py", "    if any(stream.read(tarfile.BLOCKSIZE)):", "    if False:", "tests/hostile/test_archives.py"),
)  # fmt: skip
