"""Does each row of docs/fidelity.md have a test that would notice if the code did something else?

    python scripts/mutate_fidelity.py                   # every row: 2 minutes on 2 cores, 8 where little is compiled
    python scripts/mutate_fidelity.py --row 'COVID-Net' # the rows whose name holds this

Each row has one mutation here: a piece of the code, and what would make the row untrue. In a copy of the tree the
piece is replaced and the row's test is run, alone; then the piece is put back. A row is noticed where an assertion of
that test fails. An error on the way there (an import, a crash) is no notice. First all those tests are run on the
tree as it is.

Exit status 1 where a row is not noticed, a piece is not in its file exactly once, or a test fails on the tree as it is.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIES = 2  # worked in at the same time, each by one pytest
LIMIT = 600  # seconds that one test may take
NOT_COPIED = shutil.ignore_patterns('.*', '__pycache__', 'runs', 'build', '*.egg-info')
# What pytest's summary says of a test whose assertion failed, and of one that waited for an exception in vain.
ASSERTION = re.compile(r'^FAILED .* - (assert|AssertionError|Failed: DID NOT RAISE)', re.MULTILINE)


class Mutation(NamedTuple):
    """row: its name in docs/fidelity.md. test: one that the row cites, below tests/; [parameters] choose one case.
    file: below the project's folder; old stands in it once, new is what breaks the row's claim."""

    row: str
    test: str
    file: str
    old: str
    new: str


# Rows that no change of the code can make untrue, with the reason.
UNWRITTEN: dict[str, str] = {}

MUTATIONS = [
    # CMC-COV19D
    Mutation('input of cross entropy', 'methods/cmc_test.py::test_cross_entropy_takes_logits',
             'covid_jax/methods/cmc.py', 'cross_entropy(logits, target)',
             'cross_entropy(jax.nn.softmax(logits), target)'),
    Mutation('contrastive loss', 'losses/contrastive_test.py::test_oracles',
             'covid_jax/losses/contrastive.py', 'return loss if base_temperature is None else loss *',
             'base_temperature = base_temperature or 0.07; return loss *'),
    Mutation('temperature', 'configs_test.py::test_what_the_paper_does_not_give_is_the_authors_codes',
             'configs/cmc.py', "'temperature': 0.1,", "'temperature': 0.07,"),
    Mutation('positives N_y in Eq 2', 'losses/contrastive_test.py::test_value_and_gradient_equal_the_loops',
             'covid_jax/losses/contrastive.py', 'jnp.maximum(jnp.sum(positive, 1), 1)', '(jnp.sum(positive, 1) + 1)'),
    Mutation('representation r', 'methods/cmc_test.py::test_r_is_projected_and_classified_at_its_own_length',
             'covid_jax/methods/cmc.py', "params['projector']}, out['features'])",
             "params['projector']}, out['features'] / jnp.linalg.norm(out['features'], axis=1, keepdims=True))"),
    Mutation('projection head', 'methods/cmc_test.py::test_projection_head_has_the_papers_size',
             'covid_jax/models/heads.py', 'nn.Dense(x.shape[-1])(x)', 'nn.Dense(512)(x)'),
    Mutation('losses', 'methods/cmc_test.py::test_the_loss_is_the_sum_of_its_parts',
             'covid_jax/methods/cmc.py', "classification + scalars['mix']", "scalars['mix']"),
    Mutation('sigmas', 'methods/cmc_test.py::test_a_vanishing_loss_cannot_send_its_weight_to_infinity',
             'covid_jax/methods/cmc.py', 'jnp.clip(log_sigma, -LARGEST_LOG_SIGMA, LARGEST_LOG_SIGMA)', 'log_sigma'),
    Mutation('sigmas without the contrastive loss (Model2)',
             'methods/cmc_test.py::test_without_the_contrastive_loss_nothing_is_weighed',
             'covid_jax/methods/cmc.py', 'return classification, (state_after',
             'return jnp.exp(-1.0) * classification + 1, (state_after'),
    Mutation('mixing weight', 'methods/cmc_test.py::test_weights_follow_beta_one_half',
             'covid_jax/methods/cmc.py', ', alpha, alpha)', ', 1.0, 1.0)'),
    Mutation('mixup partner', 'augment/mixup_test.py::test_partner_is_a_view_of_the_neighbouring_scan',
             'covid_jax/augment/mixup.py', 'return jnp.where(coin, pairs[:, :, ::-1], pairs)', 'return pairs'),
    Mutation('independence of partners', 'methods/cmc_test.py::test_a_partner_is_never_drawn_by_itself',
             'covid_jax/augment/mixup.py', 'return jnp.where(coin, pairs[:, :, ::-1], pairs).reshape(x.shape)',
             'return x[jnp.argsort(jnp.sin(1e4 * jnp.arange(len(x)) + jnp.sum(swap)))]'),
    Mutation('where to mix', 'methods/cmc_test.py::test_running_statistics_come_from_the_clean_views_alone',
             'covid_jax/methods/cmc.py', '(mix_logits, _), _ =', "(mix_logits, _), state_after['network'] ="),
    Mutation('views', 'methods/cmc_test.py::test_views_are_interleaved_and_differ',
             'covid_jax/methods/method.py', "_seen(view, k2, scans, batch['draw'])], 1)", "_seen(view, k2, scans, batch['draw'])], 0)"),
    Mutation('brightness', 'augment/volume_test.py::test_contrast_and_brightness_on_the_scale_of_one',
             'covid_jax/augment/volume.py', 'jnp.clip(c * volume + b,', 'jnp.clip(c * volume + b / 255,'),
    Mutation('order of augmentations',
             'augment/views_test.py::test_cmc_crops_slices_then_the_plane_then_changes_contrast',
             'covid_jax/augment/views.py',
             'volume = random_resized_crop(k_crop, volume)\n    return random_contrast_brightness(k_intensity, volume)',
             'volume = random_contrast_brightness(k_intensity, volume)\n    '
             'return random_resized_crop(k_crop, volume)'),
    Mutation('crop of the plane', 'augment/volume_test.py::test_boxes_follow_the_stated_law',
             'covid_jax/augment/volume.py', 'jnp.sqrt(box_area * aspect)', 'jnp.round(jnp.sqrt(box_area * aspect))'),
    Mutation('learning rate', 'configs_test.py::test_rows_of_table_1',
             'configs/cmc.py', 'lr=1e-3, lr_steps=(0.3, 0.8)', 'lr=1e-4, lr_steps=()'),
    Mutation('ends of epochs', 'data/pipeline_test.py::test_every_scan_once_an_epoch_in_a_new_order',
             'covid_jax/data/order.py',
             '.source(members).seed(seed).shuffle().repeat().batch(batch, drop_remainder=True)',
             '.source(members).seed(seed).shuffle().batch(batch, drop_remainder=True).repeat()'),
    Mutation('weight decay', 'runtime/optim_test.py::test_adam_with_l2_by_hand',
             'covid_jax/runtime/optim.py',
             'optax.add_decayed_weights(train.weight_decay), OPTIMIZERS[train.optimizer](train)',
             'OPTIMIZERS[train.optimizer](train), optax.add_decayed_weights(train.weight_decay)'),
    Mutation('batch normalisation',
             'models/norm_test.py::test_the_statistics_of_eight_devices_are_those_of_the_whole_batch',
             'covid_jax/models/norm.py', 'mean, var = _moments(pieces, group)',
             'group = jnp.repeat(jnp.eye(8), len(pieces[0]) // 8, 0); mean, var = _moments(pieces, group)'),
    Mutation('sum of gradients over devices',
             'models/conv_test.py::test_the_gradient_of_a_kernel_is_summed_in_the_type_that_is_computed_in',
             'covid_jax/models/conv.py',
             "lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))",
             "lax.conv_general_dilated(x.astype('float32'), kernel.astype('float32'), strides, padding, "
             "dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC')).astype(x.dtype)"),
    Mutation('kept checkpoint',
             'evaluate_test.py::test_the_checkpoint_is_chosen_by_macro_f1_of_plain_views_of_validation',
             'covid_jax/train.py', "else 'macro_f1'", "else 'accuracy'"),
    Mutation('views of the kept checkpoint',
             'evaluate_test.py::test_the_checkpoint_is_chosen_by_macro_f1_of_plain_views_of_validation',
             'covid_jax/train.py', "dataset, ('val',))", "dataset, ('val',), session.key)"),
    Mutation('test-time augmentation',
             'augment/views_test.py::test_at_full_depth_training_and_test_views_of_cmc_are_one',
             'covid_jax/augment/views.py', 'law(key, volume, volume.shape[0], extent)',
             'law(key, volume, (volume.shape[0] + 1) // 2, extent)'),
    Mutation('ensemble', 'ensemble_test.py::test_probabilities_are_averaged_by_exam',
             'covid_jax/ensemble.py', 'np.mean([member.probability', 'np.max([member.probability'),
    Mutation('decision', 'evaluate_test.py::test_the_two_files_of_the_challenge',
             'covid_jax/metrics/classification.py', 'p[:, positive] >= (', 'p[:, positive] > ('),
    Mutation('rows of Table 1', 'configs_test.py::test_rows_of_table_1',
             'configs/cmc.py', "'model3': ('ResNeSt50', 64,", "'model3': ('ResNet50', 128,"),
    Mutation('slices in evaluation', 'methods/cmc_test.py::test_all_slices_are_seen_in_evaluation',
             'covid_jax/methods/method.py', "views.whole(image, plane, extent)",
             "views.whole(image[::2], plane, extent)"),
    Mutation('baseline (ResNet50 + GRU)', 'configs_test.py::test_the_baseline',
             'covid_jax/models/gru.py', 'units: int = 128', 'units: int = 64'),
    Mutation('CC-CCII, Model4', 'configs_test.py::test_cc_ccii_is_split_as_the_paper_says',
             'configs/cmc.py', 'val=0.1, test=0.1', 'val=0.2, test=0.2'),
    Mutation('running variance', 'models/resnet_test.py::test_batch_norm_equals_flax_whether_joined_or_in_pieces',
             'covid_jax/models/norm.py', 'jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)',
             'jnp.var(x, axes, ddof=1)'),
    Mutation('stem', 'weights/pretrained_test.py::test_grey_and_other_classes',
             'covid_jax/weights/pretrained.py', 'kernel.sum(3, keepdims=True)', 'kernel.mean(3, keepdims=True)'),
    Mutation('inflated weights', 'weights/pretrained_test.py::test_a_2d_file_in_a_3d_network',
             'covid_jax/weights/pretrained.py', 'np.repeat(kernel / depth, depth, 0)', 'np.repeat(kernel, depth, 0)'),
    Mutation('epochs, batch', 'configs_test.py::test_the_default_is_model4_small',
             'configs/cmc.py', 'c.train.epochs = 12.0', 'c.train.epochs = 10.0'),
    Mutation('intervals', 'metrics/intervals_test.py::test_accuracy_of_400_patients_is_close_to_the_wilson_interval',
             'covid_jax/metrics/intervals.py', 'tail = (1 - level) / 2', 'tail = 1 - level'),
    Mutation('inflation in depth', 'methods/cmc_test.py::test_the_config_says_which_network_is_built',
             'covid_jax/models/resnet.py', 'taps: int = 3', 'taps: int = 1'),
    Mutation("Model1's depth", 'models/resnet_test.py::test_depth_of_the_map',
             'covid_jax/models/resnet.py', 'HALVED = (1, 1, 1, 2, 2, 2)', 'HALVED = (1, 1, 1, 1, 1, 1)'),
    Mutation('input of the network',
             'methods/method_test.py::test_a_network_sees_images_by_the_mean_and_deviation_of_the_authors',
             'covid_jax/methods/method.py', 'mean=model.mean, std=model.std', 'mean=0.0, std=1.0'),

    # CMT-CNN
    Mutation('latent r', 'configs_test.py::test_rows_of_cmt_cnn[ct_effb4_cls_tern-EfficientNetB4-size1-8-0.0-4096-3]',
             'configs/cmt.py', 'else 4096,', 'else 128,'),
    Mutation('NT-Xent', 'methods/cmt_test.py::test_the_loss_is_eq_8',
             'covid_jax/methods/cmt.py', "nt_xent(unit(seen['features'].astype(jnp.float32))", "nt_xent((seen['features'])"),
    Mutation('whose gradient it is', 'methods/cmt_test.py::test_the_contrastive_loss_moves_the_features_alone',
             'covid_jax/methods/cmt.py', "nt_xent(unit(seen['features'].astype(jnp.float32))", "nt_xent(unit(seen['logits'])"),
    Mutation('which view is classified', 'methods/cmt_test.py::test_which_view_is_classified[first-1.0]',
             'covid_jax/methods/cmt.py', "seen['logits'][::2]", "seen['logits'][1::2]"),
    Mutation('intensities', 'data/prep_test.py::test_min_max_of_each_scan_by_hand',
             'covid_jax/data/prep.py', 'low = float(seen.min())', 'low = 0.0'),
    Mutation('transformations of a view', 'augment/views_test.py::test_the_families_of_cmt_and_their_order',
             'covid_jax/augment/views.py', '(), 0, len(family))', '(), 0, 2)'),
    Mutation('Hounsfield transformation', 'augment/distort_test.py::test_a_curve_rises_or_falls_from_end_to_end',
             'covid_jax/augment/distort.py', 'jnp.where(jax.random.bernoulli(k_falling), 1 - t, t)', 't'),
    Mutation('local pixel shuffling', 'augment/distort_test.py::test_the_share_of_pixels_that_move',
             'covid_jax/augment/distort.py', 'SHUFFLED = 0.9', 'SHUFFLED = 0.6'),
    Mutation('Poisson noise', 'augment/distort_test.py::test_noise_has_the_mean_and_the_variance_of_its_photons',
             'covid_jax/augment/distort.py', 'PHOTONS = 30.0, 255.0', 'PHOTONS = 30.0, 200.0'),
    Mutation('painting', 'augment/paint_test.py::test_the_number_of_windows',
             'covid_jax/augment/paint.py', 'CONTINUED = 0.95', 'CONTINUED = 0.7'),
    Mutation('transformations of CT', 'augment/views_test.py::test_every_operation_is_of_a_volume_and_of_an_image',
             'covid_jax/augment/image.py', 'jnp.where(jax.random.bernoulli(key),',
             'jnp.where(jax.random.bernoulli(key, 0.5, (len(volume), 1, 1, 1)),'),
    Mutation('negatives', 'data/pipeline_test.py::test_every_scan_once_an_epoch_in_a_new_order', 'covid_jax/data/order.py',
             '.source(members).seed(seed).shuffle().repeat().batch(batch, drop_remainder=True)',
             '.source(members).seed(seed).repeat().batch(batch, drop_remainder=True)'),
    Mutation('dropout before the classifier', 'methods/cmt_test.py::test_the_loss_is_eq_8', 'covid_jax/methods/cmt.py',
             "own('classifier', params, r)", "own('classifier', params, r * 0.6)"),
    Mutation('epochs, stopping', 'configs_test.py::test_rows_of_cmt_cnn[xray_r50_full_tern-ResNet50-size2-64-0.25-4096-3]',
             'configs/cmt.py', 'patience=10', 'patience=0'),
    Mutation('folds of CMT-CNN', 'data/splits_test.py::TestFolds::test_every_patient_is_tested_once_and_parts_are_nearly_equal',
             'covid_jax/data/splits.py', 'return patients[fold::folds]', 'return patients[fold:fold + 2]'),
    Mutation('contrastive loss alone', 'methods/cmt_test.py::test_without_a_classifier_there_are_no_labels_and_no_logits',
             'covid_jax/methods/cmt.py', 'labelled=options.classification', 'labelled=True'),
    Mutation('choice of lambda', 'configs_test.py::test_stages_of_cmt_cnn', 'configs/cmt.py', "'by': 'accuracy'", "'by': 'auc'"),
    Mutation('attention decoder', 'methods/cmt_test.py::test_a_map_of_ones_leaves_the_network_unchanged',
             'covid_jax/methods/cmt.py', 'x * gate', 'x + gate'),
    Mutation('baseline of Fig 4', 'configs_test.py::test_stages_of_cmt_cnn',
             'configs/cmt.py', "{'cmt': {'weight': 0.0}, 'views': {'name': 'none'}}", "{'views': {'name': 'none'}}"),
    Mutation('numbers of Tables 1 to 4', 'configs_test.py::test_every_binary_row_of_cmt_cnn_is_impossible',
             'configs/cmt.py', '86.45 83.22 81.22', '82.45 83.22 81.22'),
    # Contrastive cross-site COVID-Net
    Mutation('cross-site, input of cross entropy', 'methods/cross_site_test.py::test_the_loss_is_eq_5',
             'covid_jax/methods/cross_site.py',
             "value = scalars['clf'] = jnp.mean(cross_entropy(logits, target))",
             "value = scalars['clf'] = jnp.mean(cross_entropy(jax.nn.sigmoid(logits), target))"),
    Mutation('cross-site, Eq 4', 'losses/contrastive_test.py::test_label_pairs_oracles',
             'covid_jax/losses/contrastive.py', 'jax.nn.softplus(others - similarity)', 'others - similarity'),
    Mutation('cross-site, reduction of Eq 4', 'methods/cross_site_test.py::test_the_loss_is_eq_5',
             'covid_jax/methods/cross_site.py',
             'return jnp.sum(values) / jnp.maximum(jnp.sum(pair), 1)',
             'return jnp.sum(values)'),
    Mutation('cross-site, batches that are not whole', 'data/pipeline_test.py::test_by_site_is_as_many_of_each_in_every_batch',
             'covid_jax/data/order.py',
             'max(map(len, sites)) * len(sites) / batch',
             'max(map(len, sites)) * len(sites) // batch'),
    Mutation('cross-site, sites in a batch of 32', 'configs_test.py::test_rows_of_cross_site_learning',
             'configs/cross_site.py', "order='by_site'", "order='shuffle'"),
    Mutation('cross-site, last layer of the embedding network',
             'methods/cross_site_test.py::test_a_last_relu_of_the_embedding_leaves_no_angle_above_a_right_one',
             'covid_jax/methods/cross_site.py', 'last_relu=options.embedding_relu', 'last_relu=True'),
    Mutation('cross-site, statistics of a site', 'methods/cross_site_test.py::test_a_site_changes_no_statistics_of_the_other',
             'covid_jax/models/norm.py',
             'return mean, of_set(jnp.var(x, space) + jnp.square(apart))',
             'return mean, of_set(jnp.var(x, space) + jnp.square(apart)) + 1e-3 * jnp.mean(x)'),
    Mutation('cross-site, normalisation of the dense layers',
             'methods/cross_site_test.py::test_the_authors_whole_network_has_its_number_of_parameters',
             'covid_jax/methods/cross_site.py', 'if not options.head_norm:\n            return None', 'return None'),
    Mutation('cross-site, optimizer', 'configs_test.py::test_rows_of_cross_site_learning',
             'configs/cross_site.py', 'clip=2.0', 'clip=0.0'),
    Mutation('cross-site, rate of the original COVID-Net',
             'configs_test.py::test_the_original_covid_net_of_cross_site_learning',
             'configs/cross_site.py', 'lr_steps=(0.3, 0.6, 0.9)', 'lr_steps=(0.5,)'),
    Mutation('cross-site, training views', 'configs_test.py::test_rows_of_cross_site_learning',
             'configs/cross_site.py', 'keep_aspect=True', 'keep_aspect=False'),
    Mutation('cross-site, test views', 'augment/volume_test.py::test_squashed_as_by_pillow',
             'covid_jax/augment/volume.py', 'apart / jnp.maximum(step, 1)', 'apart'),
    Mutation('cross-site, long images', 'data/prep_test.py::test_the_aspect_is_kept_up_to_two_to_one',
             'covid_jax/data/prep.py', 'LONGEST = 2', 'LONGEST = 3'),
    Mutation('cross-site, checkpoint', 'configs_test.py::test_rows_of_cross_site_learning',
             'covid_jax/config.py', "'select': 'auto',", "'select': 'accuracy',"),
    Mutation('cross-site, evaluation', 'configs_test.py::test_rows_of_cross_site_learning',
             'configs/cross_site.py', 'c.folds = 4', 'c.folds = 5'),
    Mutation('cross-site, F1 of Table I', 'configs_test.py::test_what_cross_site_learning_cannot_have_measured',
             'configs/cross_site.py', 'ours             90.83±0.93 90.87', 'ours             90.83±0.93 90.17'),
    Mutation('adapters, place',
             'models/adapters_test.py::test_at_the_start_a_network_with_adapters_is_the_network_without[parallel]',
             'covid_jax/models/covidnet.py', 'if adapter:', "if adapter and name != 'conv1':"),
    Mutation('adapters, start',
             'models/adapters_test.py::test_at_the_start_a_network_with_adapters_is_the_network_without[series]',
             'covid_jax/models/adapters.py', "'kernel', nn.initializers.zeros", "'kernel', nn.initializers.normal(0.1)"),
    Mutation('MS-Net, loss', 'methods/cross_site_test.py::TestMsNet::test_the_student_learns_half_from_labels_and_half_from_the_teacher',
             'covid_jax/methods/ms_net.py', 'return 0.5 * jnp.mean(cross_entropy(logits, target))',
             'return 1.0 * jnp.mean(cross_entropy(logits, target))'),
    Mutation('MS-Net, steps', 'methods/cross_site_test.py::TestMsNet::test_of_the_classifiers_a_loss_trains_its_own',
             'covid_jax/methods/ms_net.py', "net.apply({'params': head}, feature_map, method='head')[0]",
             "net.apply({'params': head}, jax.lax.stop_gradient(feature_map), method='head')[0]"),

    # Self-Trans
    Mutation('Self-Trans, Eq 1', 'losses/contrastive_test.py::test_info_nce_oracles',
             'covid_jax/losses/contrastive.py',
             "others = jnp.matmul(query, queue.T, precision='highest') / temperature",
             "others = jnp.matmul(query, queue.T, precision='highest')"),
    Mutation('Self-Trans, what enters the queue', 'methods/moco_test.py::test_the_queue_holds_the_last_keys_in_order',
             'covid_jax/methods/moco.py',
             "jnp.concatenate([other, state['queue']])",
             "jnp.concatenate([state['queue'][8:], other])"),
    Mutation('Self-Trans, key encoder', 'methods/moco_test.py::test_the_key_encoder_is_a_moving_average_and_has_no_gradient',
             'covid_jax/methods/moco.py',
             'options.momentum * k + (1 - options.momentum) * q',
             'options.momentum * q + (1 - options.momentum) * k'),
    Mutation('Self-Trans, shuffled normalisation',
             'methods/moco_test.py::test_an_image_changes_the_keys_of_its_group_alone_and_groups_are_drawn_anew',
             'covid_jax/methods/moco.py', 'shuffled(jax.random.fold_in(k_group, step), in_order)', 'in_order'),
    Mutation('Self-Trans, temperature and queue', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', "'temperature': 0.07", "'temperature': 0.2"),
    Mutation('Self-Trans, epochs of the pretext', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', 'else 200.0', 'else 1000.0'),
    Mutation('Self-Trans, images of the pretext', 'configs_test.py::test_what_self_trans_learns_from_without_labels',
             'configs/self_trans.py', 'elif all_images:', 'else:'),
    Mutation('Self-Trans, colour', 'augment/views_test.py::test_parts_of_a_view_of_moco',
             'covid_jax/augment/views.py', 'jnp.array([0.8, 0.5, 0.5])', 'jnp.array([0.8, 0.2, 0.5])'),
    Mutation('Self-Trans, rate of fine-tuning', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', 'period=10.0', 'period=0.0'),
    Mutation('Self-Trans, means of images', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', "'mean': 0.45271412", "'mean': 0.485"),
    Mutation('Self-Trans, classifier', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', "'init_skip': 'classifier'", "'init_skip': ''"),
    Mutation('Self-Trans, F1', 'configs_test.py::test_the_f1_of_self_trans_is_that_of_its_own_positive_class',
             'configs/self_trans.py', "'f1_noncovid', 'auc', 'f1_covid'", "'f1_covid', 'auc', 'f1_noncovid'"),
    Mutation('Self-Trans, evaluation', 'configs_test.py::test_rows_of_self_trans',
             'configs/self_trans.py', "c.eval.select = 'auc'", "c.eval.select = 'accuracy'"),
    Mutation('Self-Trans, rotation baseline', 'methods/supervised_test.py::test_rotation_is_a_second_task_of_the_same_view',
             'covid_jax/methods/supervised.py',
             "value = value + scalars['rotation']",
             "value = value + 0.5 * scalars['rotation']"),

    # Rubik's cube Pro and dual-track ranking
    Mutation("Rubik's cube, orders", 'augment/cubes_test.py::test_any_two_orders_differ_in_six_places_or_more',
             'covid_jax/augment/cubes.py',
             'if (n[0] * n[3] - n[1] * n[2]) % FIELD]',
             'if n[0]]'),
    Mutation("Rubik's cube, borders", 'augment/cubes_test.py::test_a_cube_lies_anywhere_in_its_cell',
             'covid_jax/augment/cubes.py',
             'np.array(gap) + 1)',
             'np.array(gap))'),
    Mutation("Rubik's cube, turns", 'augment/cubes_test.py::test_a_turn_by_hand',
             'covid_jax/augment/cubes.py',
             'cubes[:, ::-1, :, ::-1]',
             'cubes[:, ::-1, ::-1]'),
    Mutation("Rubik's cube, labels of turns", 'augment/cubes_test.py::test_what_is_told_of_a_scrambled_volume_is_what_was_done',
             'covid_jax/augment/cubes.py',
             'turn(turned, permute(number, cut(k_cut, volume, gap)))',
             'permute(number, turn(turned, cut(k_cut, volume, gap)))'),
    Mutation("Rubik's cube, Eq 2", 'methods/rubik_test.py::test_the_loss_by_hand',
             'covid_jax/methods/rubik.py',
             'jnp.mean(optax.sigmoid_binary_cross_entropy(logits, turned))',
             '-jnp.mean(turned * jax.nn.log_sigmoid(logits))'),
    Mutation("Rubik's cube, features", 'methods/rubik_test.py::test_the_features_are_of_the_whole_scan',
             'covid_jax/methods/rubik.py',
             'tested(batch, key), site',
             'tested(batch, key)[:, ::2], site'),
    Mutation("Rubik's cube, epochs", 'configs_test.py::test_rows_of_rubiks_cube',
             'configs/rubik.py',
             "if small else 100.0, 'eval_every'",
             "if small else 60.0, 'eval_every'"),
    Mutation("earth mover's distance, ground", 'ranking/emd_test.py::test_by_hand',
             'covid_jax/ranking/emd.py',
             '1 / (bins - 1) / x',
             '1 / bins / x'),
    Mutation("earth mover's distance, masses", 'ranking/emd_test.py::test_unequal_masses_are_the_linear_programs',
             'covid_jax/ranking/emd.py',
             'work / least / (p',
             'work / (p'),
    Mutation('dual-track ranking, soft labels', 'rank_test.py::test_difficulty_and_diversity_are_the_means_of_distances_that_scipy_finds',
             'covid_jax/rank.py', 'select.diversity(_distances(soft, soft,', 'select.diversity(_distances(without.features, without.features,'),
    Mutation('dual-track ranking, Eq 5 to 7', 'ranking/select_test.py::test_the_ranks_of_three_by_hand',
             'covid_jax/ranking/select.py', 'ranks(-div))', 'ranks(div))'),
    Mutation('dual-track ranking, laws of choice', 'ranking/select_test.py::test_of_one_choice_the_frequencies_are_the_weights',
             'covid_jax/ranking/select.py', '(n / 6)', '(n / 3)'),
    Mutation('dual-track ranking, numbers of negatives', 'configs_test.py::test_rows_of_dual_track_ranking',
             'configs/rubik.py', '28: 500 / 1785', '28: 0.3'),
    Mutation('dual-track ranking, epochs', 'configs_test.py::test_rows_of_dual_track_ranking',
             'configs/rubik.py', 'epochs=20.0 if small else 100.0', 'epochs=20.0 if small else 60.0'),
    Mutation('dual-track ranking, focal loss', 'losses/classification_test.py::test_focal_by_hand',
             'covid_jax/losses/classification.py', '== POSITIVE, alpha, 1 - alpha)', '== POSITIVE, 1 - alpha, alpha)'),
    Mutation('dual-track ranking, OHEM', 'methods/supervised_test.py::test_of_ohem_half_a_batch_is_the_default',
             'covid_jax/methods/supervised.py', "'keep': 0.5,", "'keep': 0.25,"),
    Mutation('dual-track ranking, oversampling', 'data/pipeline_test.py::test_balanced_repeats_the_rarer_classes',
             'covid_jax/data/order.py', 'most = max(map(len, classes))', 'most = min(map(len, classes))'),
    Mutation('dual-track ranking, views', 'augment/views_test.py::test_parts_of_a_view_of_rubik',
             'covid_jax/augment/views.py', 'axes=(0, 1, 2))', 'axes=(1, 2))'),

    # Networks
    Mutation('VGG-19, pools', 'models/vgg_test.py::test_published_numbers_of_parameters_and_the_papers_shapes',
             'covid_jax/models/vgg.py', 'max_pool(x, window, window,',
             'max_pool(x, [2 * n - 1 for n in window], window,'),
    Mutation('VGG-19, parameters', 'models/vgg_test.py::test_published_numbers_of_parameters_and_the_papers_shapes',
             'covid_jax/models/vgg.py', 'dense: int = 4096', 'dense: int = 2048'),
    Mutation('VGG in 2D, map before the dense layers',
             'models/vgg_test.py::test_published_numbers_of_parameters_and_the_papers_shapes',
             'covid_jax/models/vgg.py', 'PLANE = (7, 7)', 'PLANE = (6, 6)'),
    Mutation('EfficientNet, normalisation', 'models/parity_test.py::test_evaluation[efficientnet_b0]',
             'covid_jax/models/efficientnet.py', 'epsilon: float = 1e-5', 'epsilon: float = 1e-3'),
    Mutation('EfficientNet-B4, channels of the last map', 'models/efficientnet_test.py::test_b4_is_the_table_of_cmt_cnn_in_two_and_three_dimensions',
             'covid_jax/models/efficientnet.py', 'head_width: int = 1280', 'head_width: int = 1463'),
    Mutation('EfficientNet in 3D',
             'models/efficientnet_test.py::test_a_volume_turned_about_gives_the_answer_of_kernels_turned_about',
             'covid_jax/models/efficientnet.py', 'return 1 if self.taps == 1 else s, s, s', 'return 1, s, s'),
    Mutation('CRNet, blocks', 'models/crnet_test.py::test_the_papers_number_of_parameters_layer_by_layer',
             'covid_jax/models/crnet.py', '(32, 64, 128)', '(32, 64, 128, 128)'),
    Mutation('CRNet, input', 'models/crnet_test.py::test_another_image_is_one_line_that_names_the_size',
             'covid_jax/models/crnet.py', 'if x.shape[1:] != (1, self.size, self.size, 1):', 'if x.shape[1:4] != (1, self.size, self.size):'),
    Mutation('CRNet, paddings', 'models/crnet_test.py::test_the_papers_number_of_parameters_layer_by_layer',
             'covid_jax/models/crnet.py', '(1, 2, 2), [(0, 0)] * 3)', '(1, 2, 2), [(0, 0), (1, 1), (1, 1)])'),
    Mutation('CRNet, last pool', 'models/crnet_test.py::test_the_features_are_means_of_four_in_torchs_order',
             'covid_jax/models/crnet.py', 'avg_pool(x if x.ndim == 4 else x[:, 0], (2, 2), (2, 2), [(0, 0)] * 2)',
             'jnp.mean(x if x.ndim == 4 else x[:, 0], (1, 2), keepdims=True)'),
    Mutation('COVID-Net, p41', 'models/covidnet_test.py::test_each_block_of_the_third_level_goes_down_once',
             'covid_jax/models/covidnet.py', 'if i == 4 and not self.p33', 'if i == 4'),
    Mutation('COVID-Net, between its dense layers', 'models/parity_test.py::test_evaluation[covidnet]',
             'covid_jax/models/covidnet.py', '                x = nn.relu(x)\n        return x',
             '                x = nn.relu(x) if norm else x\n        return x'),
    Mutation('COVID-Net redesign, normalisation of the dense layers',
             'models/covidnet_test.py::test_published_numbers_of_parameters_and_shapes',
             'covid_jax/models/covidnet.py', 'head_norm: bool = False', 'head_norm: bool = True'),
    Mutation('COVID-Net redesign, embedding', 'models/covidnet_test.py::test_the_dense_layers_shrink_to_a_twelfth',
             'covid_jax/models/covidnet.py', 'sites=2, pool=2)', 'sites=2, pool=3)'),
    Mutation('COVID-Net redesign, a site never trained on',
             'models/covidnet_test.py::test_an_unknown_site_is_answered_by_the_mean_of_the_known_ones',
             'covid_jax/models/covidnet.py', 'jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - math.log(self.sites)',
             'jnp.mean(jax.nn.log_softmax(logits), 0)'),
    Mutation('COVID-Net, parameters', 'models/covidnet_test.py::test_published_numbers_of_parameters_and_shapes',
             'covid_jax/models/covidnet.py', 'width: int = 64', 'width: int = 56'),
    Mutation('COVID-Net, start', 'models/covidnet_test.py::test_everything_starts_as_in_torch',
             'covid_jax/models/covidnet.py', "variance_scaling(1 / 3, 'fan_in', 'uniform')",
             "variance_scaling(2.0, 'fan_in', 'normal')"),
    Mutation('all others, start', 'models/families_test.py::test_what_weights_start_from',
             'covid_jax/models/heads.py', 'nn.initializers.normal(0.001)', 'nn.initializers.normal(0.01)'),
    Mutation('3D ResNet of dual-track ranking', 'models/resnet_test.py::test_published_numbers_of_parameters',
             'covid_jax/models/resnet.py', "'stem_taps': 7", "'stem_taps': 3"),
    Mutation('sites in a batch', 'models/norm_test.py::test_each_site_is_normalised_as_if_it_were_alone',
             'covid_jax/models/norm.py', 'jax.nn.one_hot(site, sites,', 'jax.nn.one_hot(0 * site, sites,'),

    # Data
    Mutation('CMC-COV19D, resize', 'data/prep_test.py::test_resize_equals_scipy_on_half_pixels',
             'covid_jax/data/prep.py', 'np.arange(size) + 0.5 - size / 2', 'np.arange(size) - size / 2'),
    Mutation('CMC-COV19D, order of slices', 'scans/decode_test.py::test_whole_stem_decides_from_the_left',
             'covid_jax/scans/names.py', "readings.get((form, i), _signed)(part) if i % 2 else part for i", 'part for i'),
    Mutation('COV19-CT-DB, broken scans',
             'sources/sources_test.py::TestPartsOf::test_shipped_lists_are_written_as_the_source_writes_ids',
             'covid_jax/sources/__init__.py', 'if exam.id not in excluded', 'if exam.id'),
    Mutation('CC-CCII, short scans', 'sources/published_test.py::TestCcCcii::test_labels_patients_and_short_scans',
             'covid_jax/sources/published.py', 'FEWEST_SLICES = 20', 'FEWEST_SLICES = 10'),
    Mutation('CC-CCII, split', 'data/splits_test.py::TestDraw::test_patient_is_never_torn',
             'covid_jax/data/splits.py', "split=split.get(exam.patient, 'train')) for exam in exams]",
             "split=split.get(exam.patient, 'train') if i % 2 else 'train') for i, exam in enumerate(exams)]"),
    Mutation('COVID-CT', 'scans/images_test.py::test_every_mode_gives_the_same_grey',
             'covid_jax/scans/images.py', "upright.convert('L')", 'upright.getchannel(0)'),
    Mutation("Rubik's cube Pro, lungs",
             'scans/lungs_test.py::test_a_consolidation_at_the_pleura_is_filled_and_the_heart_is_not',
             'covid_jax/scans/lungs.py', 'lungs = _closed(lungs, middle, mm, GAP)',
             'return _fine(lungs, steps, scan.voxels.shape)'),
    Mutation("Rubik's cube Pro, order", 'data/prep_test.py::test_lungs_crop_and_mask',
             'covid_jax/data/prep.py', 'plane *= mask', 'plane[~mask] = np.clip(-low * 255 / (high - low), 0, 255)'),
    Mutation('LUNA16 slices (Self-Trans)', 'sources/published_test.py::TestLuna16::test_slices_of_nodules',
             'covid_jax/sources/published.py', 'round((float(z) - origin) / spacing)',
             'int((float(z) - origin) / spacing)'),
]


def pytest(tree, *arguments, limit=None):
    """The finished pytest in the tree, which may be a copy; what it compiles is kept with that of the suite."""
    path = os.pathsep.join([str(tree), str(tree / 'tests')])
    env = dict(os.environ, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE='1', COLUMNS='500')
    env.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'xla'))
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-q', '--tb=no', '-rfE', '-m', 'not parity', *arguments]
    return subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=limit)


def verdict(result):
    """'noticed', or 'NOT NOTICED' and why."""
    errors = re.search(r'^ERROR ', result.stdout, re.MULTILINE)
    if result.returncode == 1 and ASSERTION.search(result.stdout) and not errors:
        return 'noticed'
    last = result.stdout.strip().splitlines()[-1:] or ['']
    return f'NOT NOTICED (exit {result.returncode}: {last[0]})'


def broken(tree, mutation):
    """(verdict, seconds) of one mutation in a copy of the tree, which is as before afterwards."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        return 'text not found', 0.0
    begun = time.monotonic()
    try:
        path.write_text(text.replace(mutation.old, mutation.new))
        found = verdict(pytest(tree, '-n', '0', f'tests/{mutation.test}', limit=LIMIT))
    except subprocess.TimeoutExpired:
        found = f'NOT NOTICED (more than {LIMIT} s)'
    finally:
        path.write_text(text)
    return found, time.monotonic() - begun


def short(text, most=60):
    """One line of at most so many characters for a cell."""
    line = ' '.join(text.split()).replace('|', '\\|')
    return line if len(line) <= most else line[:most - 3] + '...'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--row', default='', help='only rows whose name holds this')
    chosen = parser.parse_args().row
    mutations = [m for m in MUTATIONS if chosen in m.row]
    if not mutations and not any(chosen in row for row in UNWRITTEN):
        parser.error(f'no row of docs/fidelity.md has a name with {chosen!r}')
    begun = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(COPIES) as threads:
        trees = queue.SimpleQueue()
        for i in range(COPIES):
            trees.put(shutil.copytree(ROOT, Path(folder, str(i)), ignore=NOT_COPIED))

        def one(mutation):
            tree = trees.get()
            try:
                return broken(tree, mutation)
            finally:
                trees.put(tree)

        tree = trees.get()
        tests = [f'tests/{test}' for test in dict.fromkeys(m.test for m in mutations)]
        whole = pytest(tree, '-n', str(COPIES), *tests)
        trees.put(tree)
        print(f'as it is: {whole.stdout.strip().splitlines()[-1]}\n')
        print('| row | mutation | test | | seconds |\n|---|---|---|---|---|')
        failed += whole.returncode != 0
        for m, (found, seconds) in zip(mutations, threads.map(one, mutations), strict=True):
            failed += found != 'noticed'
            change = f'{Path(m.file).name}: `{short(m.old)}` -> `{short(m.new)}`'
            print(f'| {m.row} | {change} | {m.test} | {found} | {seconds:.0f} |', flush=True)
    for row, reason in UNWRITTEN.items():
        if chosen in row:
            print(f'| {row} | none: {reason} | | | |')
    print(f'\n{len(mutations)} rows, {failed} not noticed or wrong, {(time.monotonic() - begun) / 60:.0f} minutes')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
