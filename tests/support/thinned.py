"""Crossings of many cases that take long: `make test` runs some of each, `make test-all` all.

Steps are odd where modes take turns, so that both are among what stays.
"""

# {test: every which case stays in `make test`}
EVERY = {
    "compaction/test_compaction.py::test_outputs_of_random_graphs": 3,
    "export/test_export_formats.py::test_auto_weighs_every_kind_of_weight": 3,
    "keras_layers/test_every_layer.py::test_layers_with_kernels_are_pruned": 3,
    "keras_layers/test_outputs.py::test_no_class_loses_its_weights": 3,
    "keras_layers/test_prune_low_magnitude.py::test_every_kind_of_layer": 3,
    "keras_layers/test_quantize.py::test_a_quantized_model_is_the_stripped_one_quantized": 2,
    "keras_layers/test_quantize.py::test_a_quantized_model_of_a_method_with_state_loads": 3,
    "keras_layers/test_quantize.py::test_modes_that_do_not_leave_zeros_alone_are_refused": 3,
    "keras_layers/test_quantize.py::test_one_layer_is_quantized_however_it_is_reached": 3,
    "keras_layers/test_transparent.py"
    "::test_outputs_are_those_of_the_plain_model_whatever_the_dtypes": 5,
    "masks/test_pattern_training.py::test_granet_with_patterns_is_algorithm_1_over_units": 5,
    "masks/test_pattern_training.py::test_methods_keep_units_whole_and_counts_exact": 3,
    "masks/test_pattern_training.py::test_rigl_and_set_keep_the_count_of_units": 5,
    "masks/test_patterns.py::test_n_of_m_against_numpy": 3,
    "masks/test_selection.py::test_the_same_in_a_graph_and_under_xla": 3,
    "methods/test_at_initialization.py::test_two_replicas_draw_the_masks_of_one_device": 2,
    "methods/test_more_methods.py::test_a_run_goes_on_from_a_file_bit_by_bit": 5,
    "methods/test_more_methods.py::test_replicas_agree_to_the_bit_and_with_one_device": 5,
    "plasticity/test_plasticity.py::test_masks_are_those_of_a_slow_numpy_version": 3,
    "sparsity/test_prune_own_models.py"
    "::test_layers_in_all_containers_are_wrapped_trained_saved_and_stripped": 2,
    "sparsity/test_prune_own_models.py"
    "::test_layers_without_weights_that_are_not_built_are_no_obstacle": 5,
    "structured/test_coupled_filters.py::test_other_methods_see_a_group_as_one": 2,
    "structured/test_shrinking.py::test_optimizers_go_on": 2,
    "structured/test_shrinking.py::test_the_next_step_of_random_graphs": 4,
    "test_begin_and_end.py::test_no_connection_is_new_where_less_than_a_period_is_left": 2,
    "test_budgets.py::test_the_file_is_as_large_as_asked_for": 2,
    "test_distribution.py::test_replicas_agree_to_the_bit_and_with_one_device": 3,
    "test_optimizer.py::test_dormant_weights_are_zero_with_fresh_slots_after_every_step": 3,
    "wrapping/test_own_methods.py"
    "::test_every_method_is_called_and_all_figures_are_those_of_the_plain_model": 5,
    "wrapping/test_own_methods.py::test_it_is_pruned_saved_copied_and_stripped": 5,
    "wrapping/test_own_methods.py::test_two_replicas_do_as_one_device": 2,
    "test_real_models.py::test_small_models": 2,
    "test_semantics.py::test_the_same_however_it_is_executed": 3,
    "wrapping/test_serialization.py"
    "::test_a_model_in_any_state_loads_and_computes_as_the_plain_one": 5,
    "test_trained_by_others.py::test_its_masks_are_updated_by_the_optimizer_of_that_one": 5,
    "training/test_checkpoints.py::test_the_best_epoch_is_the_result": 2,
    # Each way to start the command, and each answer.
    "training/test_flags.py::test_answers_before_data_are_touched": 3,
    "training/test_networks.py::test_initial_values": 3,
    "training/test_networks.py::test_layers_have_the_same_names_in_every_build": 3,
    "training/test_networks.py::test_networks_of_keras_do_not_rescale_what_is_normalized": 2,
    "training/test_networks.py::test_sizes": 2,
    "training/test_networks.py::test_small_images_work": 3,
    "training/test_networks.py::test_width_scales_all_channels": 3,
    "training/test_training.py::test_mixed_precision": 2,
    "training/test_training_distribution.py"
    "::test_the_step_of_a_tpu_compiles_and_does_what_the_plain_one_does": 3,
}
